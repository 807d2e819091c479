"""Which cluster to use: the one that is given, kind where Docker answers, else the local one.

The choice is printed; there is no silent fallback.
"""

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tidegate_e2e import helm, images
from tidegate_e2e.localcluster import binaries, lifecycle
from tidegate_e2e.localcluster.plan import INSTANCES, plan
from tidegate_e2e.localcluster.progress import say
from tidegate_e2e.localcluster.system import PrerequisiteError, run, stream

Kind = Literal["given", "kind", "local"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster and how to use it."""

    kind: Kind
    instance: str
    kubeconfig: Path

    def environment(self) -> dict[str, str]:
        """Return this process's environment with KUBECONFIG and PATH of the cluster's tools."""
        folders = [str(helm.ensure().parent), os.environ.get("PATH", "")]
        if self.kind == "local":
            folders.insert(0, str(binaries.ensure()))
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": ":".join(folders)}

    def load_images(self, names: Collection[str] = ()) -> None:
        """Put built images, all of the project's if none is named, where the nodes find them."""
        known = images.known_images(names)
        wanted = [image for name, image in known.items() if not names or name in names]
        if self.kind == "local":
            images.load(plan(self.instance), names)
        elif self.kind == "kind":
            for image in wanted:
                for reference in image.references[1:]:
                    run("docker", "tag", image.reference, reference)
                tags = image.references
                run("kind", "load", "docker-image", *tags, "--name", _kind_name(self.instance))
        else:
            say("==> a given cluster pulls its images itself; its nodes need these by name:")
            for image in wanted:
                say(f"    {image.reference}")

    def down(self) -> None:
        """End what `choose` started; a given cluster is left alone."""
        if self.kind == "local":
            lifecycle.down(plan(self.instance))
        elif self.kind == "kind":
            run("kind", "delete", "cluster", "--name", _kind_name(self.instance))


def find(instance: str) -> Cluster:
    """Return the cluster of an instance (demo, test), whether it runs or not.

    Order: TIDEGATE_KUBECONFIG or KUBECONFIG, then kind, then the local one. A KUBECONFIG that we
    wrote ourselves chooses nothing: `make test` in the demo's shell must not use the demo.
    """
    given = given_kubeconfig(os.environ)
    if given:
        return Cluster("given", instance, Path(given))
    if shutil.which("kind") and images.docker_answers():
        return Cluster("kind", instance, _kind_kubeconfig(instance))
    return Cluster("local", instance, plan(instance).kubeconfig)


def choose(instance: str) -> Cluster:
    """Return the running cluster of an instance, started where that is ours."""
    cluster = find(instance)
    if cluster.kind == "given":
        if shutil.which("kubectl") is None:
            raise PrerequisiteError("KUBECONFIG is set, but kubectl is not on PATH: install it")
        say(f"==> using the cluster of KUBECONFIG={cluster.kubeconfig}")
    elif cluster.kind == "kind":
        _start_kind(instance, cluster.kubeconfig)
    else:
        lifecycle.up(plan(instance))
    return cluster


def given_kubeconfig(environment: Mapping[str, str]) -> str:
    """Return the kubeconfig that the user chose, "" for none."""
    explicit = environment.get("TIDEGATE_KUBECONFIG")
    if explicit:
        return explicit
    ambient = environment.get("KUBECONFIG", "")
    ours = {str(plan(name).kubeconfig) for name in INSTANCES}
    ours |= {str(_kind_kubeconfig(name)) for name in INSTANCES}
    return "" if ambient in ours else ambient


def _start_kind(instance: str, kubeconfig: Path) -> None:
    name = _kind_name(instance)
    if name not in run("kind", "get", "clusters").split():
        say(f"==> creating kind cluster {name}")
        stream("kind", "create", "cluster", "--name", name)
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(run("kind", "get", "kubeconfig", "--name", name))


def _kind_kubeconfig(instance: str) -> Path:
    return binaries.cache_root() / f"{_kind_name(instance)}.kubeconfig"


def _kind_name(instance: str) -> str:
    return f"tidegate-{instance}"
