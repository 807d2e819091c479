"""Kubernetes' and etcd's programs, built once from Go modules and kept by the hash of go.sum."""

import hashlib
import os
import re
import shutil
from pathlib import Path

from tidegate_e2e.localcluster.progress import say, step
from tidegate_e2e.localcluster.system import CommandError, PrerequisiteError, run, stream

MODULE = Path(__file__).parents[2] / "kubernetes"
_KUBERNETES = (
    "kubectl", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
    "kube-proxy",
)  # fmt: skip
_GO_MINIMUM = (1, 25)


def cache_root() -> Path:
    """Return the folder for everything that outlives a work tree."""
    default = Path.home() / ".cache" / "tidegate"
    return Path(os.environ.get("TIDEGATE_CACHE", default))


def folder_of_programs() -> Path:
    """Return where the programs of these go.mod and go.sum are, or will be."""
    locks = (MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()
    return cache_root() / f"kubernetes-{hashlib.sha256(locks).hexdigest()[:16]}"


def kubectl(kubeconfig: Path) -> list[str]:
    """Return the prefix that speaks to a cluster with the kubectl that was built here."""
    return [f"{folder_of_programs()}/kubectl", f"--kubeconfig={kubeconfig}"]


def ensure() -> Path:
    """Build what is missing and return the folder of the programs; each is renamed in whole."""
    folder = folder_of_programs()
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in (*_KUBERNETES, "etcd") if not (folder / name).exists()]
    if missing:
        go = _go()
        with step(f"build Kubernetes from source, {len(missing)} programs (minutes, once)"):
            for name in missing:
                _build(go, name, folder)
    return folder


def version() -> str:
    """Return the pinned Kubernetes version, as in go.mod."""
    found = re.search(r"k8s\.io/kubernetes (v[0-9.]+)", (MODULE / "go.mod").read_text())
    if found is None:
        raise CommandError(f"{MODULE}/go.mod pins no k8s.io/kubernetes")
    return found[1]


def _build(go: str, name: str, folder: Path) -> None:
    package = "go.etcd.io/etcd/server/v3" if name == "etcd" else f"k8s.io/kubernetes/cmd/{name}"
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={version()}"
    unfinished = folder / f".{name}.{os.getpid()}"
    say(f"    go build {package}")
    stream(
        go, "build", "-trimpath", "-ldflags", flags, "-o", str(unfinished), package,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}, cwd=MODULE,
    )  # fmt: skip
    unfinished.rename(folder / name)


def _go() -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise PrerequisiteError(
            "Go 1.25 or newer is needed to build the local cluster: install it from the Go "
            "project's downloads and put its bin folder on PATH, or set KUBECONFIG to a cluster"
        )
    found = re.search(r"go(\d+)\.(\d+)", run(go, "version"))
    if found is None or (int(found[1]), int(found[2])) < _GO_MINIMUM:
        raise PrerequisiteError(f"{go} is older than Go 1.25: install a newer one")
    return go
