"""Bring an instance up, whatever an earlier run or crash left, and take it down to nothing."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tidegate_e2e import helm, images
from tidegate_e2e.localcluster import binaries, certificates, configs, network
from tidegate_e2e.localcluster.components import Component, components
from tidegate_e2e.localcluster.plan import Plan
from tidegate_e2e.localcluster.progress import say, step
from tidegate_e2e.localcluster.system import (
    ClusterError,
    CommandError,
    PrerequisiteError,
    end_all,
    install_packages,
    locked,
    processes_inside,
    processes_with,
    run,
    running,
    start,
    stop,
)

_READY_S = 90


def up(plan: Plan) -> None:
    """Return when the node is Ready; raises ClusterError with the log to read."""
    _require_root()
    install_packages()
    folder = binaries.ensure()
    with locked(_lock(plan)):
        if _healthy(plan):
            say(f"==> cluster {plan.instance} is up")
            return
        with step(f"start cluster {plan.instance} ({plan.server})"):
            _start_all(plan, folder)


def down(plan: Plan) -> None:
    """End every process of the instance by pid and remove what it left; images are kept."""
    _require_root()
    with locked(_lock(plan)), step(f"stop cluster {plan.instance}"):
        pids = plan.state / "pids"
        for name in ("kubelet", "kube-proxy", "kube-scheduler", "kube-controller-manager"):
            stop(pids / name)
        network.end_pods(plan)
        end_all(lambda: processes_with(str(plan.socket)))  # containerd's shims name it
        for name in ("kube-apiserver", "containerd", "etcd"):
            stop(pids / name)
        end_all(lambda: processes_inside(plan.namespace_file))  # what lost its supervisor
        network.end_pods(plan)
        network.remove_cgroups(plan)
        _unmount(plan)
        network.remove(plan)
        _remove_traces(plan)
        _remove_state(plan)


def status(plan: Plan) -> dict[str, bool]:
    """Return which programs of the instance run."""
    pids = plan.state / "pids"
    names = [component.name for component in components(plan, Path(), Path())]
    return {name: running(pids / name) for name in names}


def environment(plan: Plan) -> dict[str, str]:
    """Return KUBECONFIG and the folders to put first on PATH."""
    return {
        "KUBECONFIG": str(plan.kubeconfig),
        "PATH": f"{binaries.ensure()}:{helm.ensure().parent}",
    }


def _require_root() -> None:
    if os.geteuid() != 0:
        raise PrerequisiteError(
            "the local cluster needs root (network namespace, containerd): run as root, install "
            "docker and kind, or set KUBECONFIG to a cluster"
        )


def _lock(plan: Plan) -> Path:
    return plan.state.with_suffix(".lock")


def _start_all(plan: Plan, folder: Path) -> None:
    _forget_another_boot(plan)
    network.create(plan)
    network.create_cgroups(plan)
    programs = _prepare(plan, folder)
    for component in programs[:2]:  # etcd, containerd
        _start(plan, component)
    _import_pause_image(plan)
    for component in programs[2:]:
        _start(plan, component)
    _wait_ready(plan)


def _prepare(plan: Plan, folder: Path) -> tuple[Component, ...]:
    pki = certificates.write_all(plan)
    state = plan.state
    for name in ("cni", "logs", "kubelet"):
        (state / name).mkdir(parents=True, exist_ok=True)
    files = {
        "containerd.toml": configs.containerd(plan),
        "cni/10-bridge.conflist": configs.network(plan),
        "kubelet.json": configs.kubelet(plan, pki),
        "audit-policy.json": configs.audit_policy(),
    }
    for user in ("admin", "controller-manager", "scheduler", "proxy", "kubelet"):
        files[f"{user}.kubeconfig"] = configs.kubeconfig(plan, user, pki)
    for name, text in files.items():
        (state / name).write_text(text)
    return components(plan, folder, pki)


def _start(plan: Plan, component: Component) -> None:
    start(
        plan.state / "pids" / component.name,
        plan.state / "logs" / f"{component.name}.log",
        component.command,
        network.enter(plan),
    )


def _import_pause_image(plan: Plan) -> None:
    _wait(lambda: _succeeds(*images.ctr(plan), "version"), 20, f"{plan.state}/logs/containerd.log")
    if configs.PAUSE_IMAGE not in run(*images.ctr(plan), "images", "ls", "-q").split():
        images.import_into(plan, images.pause_archive())


def _wait_ready(plan: Plan) -> None:
    _wait(
        lambda: _healthy(plan),
        _READY_S,
        f"{plan.state}/logs/kube-apiserver.log and kubelet.log",
    )


def _healthy(plan: Plan) -> bool:
    if not all(status(plan).values()):
        return False
    kubectl = [*binaries.kubectl(plan.kubeconfig), "--request-timeout=3s"]
    try:
        node = json.loads(run(*kubectl, "get", "node", plan.node, "-o", "json"))
        run(*kubectl, "get", "serviceaccount", "default")
        # The node's condition outlives its kubelet by 40 s: ask the kubelet itself.
        run(*kubectl, "get", "--raw", f"/api/v1/nodes/{plan.node}/proxy/healthz")
    except CommandError:
        return False
    conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def _succeeds(*command: str) -> bool:
    try:
        run(*command)
    except CommandError:
        return False
    return True


def _wait(probe: Callable[[], bool], timeout_s: float, log: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not probe():
        if time.monotonic() > deadline:
            raise ClusterError(f"the cluster did not come up within {timeout_s:.0f} s: see {log}")
        time.sleep(0.25)


def _forget_another_boot(plan: Plan) -> None:
    """Start afresh after a reboot: etcd does not sync to disk here, so its data may be torn."""
    marker = plan.state / "boot-id"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    if marker.exists() and marker.read_text() != boot:
        _remove_state(plan)
    plan.state.mkdir(parents=True, exist_ok=True)
    marker.write_text(boot)


def _unmount(plan: Plan) -> None:
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [mount for mount in mounts if mount.startswith(f"{plan.state}/")]
    for mount in sorted(inside, key=len, reverse=True):
        run("umount", "-l", mount, check=False)


def _remove_traces(plan: Plan) -> None:
    """Remove what containerd and the kubelet write outside the state folder."""
    tasks = plan.state / "containerd" / "state" / "io.containerd.runtime.v2.task" / "k8s.io"
    for address in tasks.glob("*/address"):  # of a shim that could not clean up: it was killed
        Path(address.read_text().strip().removeprefix("unix://")).unlink(missing_ok=True)
    for task in tasks.glob("*"):
        shutil.rmtree(Path("/run/containerd/runc/k8s.io") / task.name, ignore_errors=True)
    results = Path("/var/lib/cni/results")  # libcni's, one of ours and one of "lo" for each pod
    for result in results.glob(f"{plan.node}-*-eth0"):
        sandbox = result.name.removeprefix(f"{plan.node}-").removesuffix("-eth0")
        (results / f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)
        result.unlink()
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(plan.state):
            link.unlink()


def _remove_state(plan: Plan) -> None:
    """Remove everything but containerd's root, which holds images."""
    if not plan.state.exists():
        return
    for entry in plan.state.iterdir():
        if entry.name == "containerd":
            shutil.rmtree(entry / "state", ignore_errors=True)
        elif entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
