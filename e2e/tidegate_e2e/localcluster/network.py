"""The instance's network namespace, its link to the host, and the cgroups of its pods."""

import contextlib
from pathlib import Path

from tidegate_e2e.localcluster.plan import Plan
from tidegate_e2e.localcluster.system import end, run

_CGROUPS = Path("/sys/fs/cgroup")


def enter(plan: Plan) -> list[str]:
    """Return the prefix that runs a command in the namespace.

    nsenter, not `ip netns exec`: that one remounts /sys and hides the cgroups from the kubelet.
    """
    return ["nsenter", f"--net=/var/run/netns/{plan.namespace}"]


def create(plan: Plan) -> None:
    """Make namespace, veth pair and routes; what exists is kept."""
    if plan.namespace not in run("ip", "netns", "list").split():
        run("ip", "netns", "add", plan.namespace)
    if not _exists(plan.host_link):
        run(
            "ip", "link", "add", plan.host_link, "type", "veth",
            "peer", "name", plan.node_link, "netns", plan.namespace,
        )  # fmt: skip
    inside = enter(plan)
    run("ip", "address", "replace", f"{plan.host_ip}/30", "dev", plan.host_link)
    run("ip", "link", "set", plan.host_link, "up")
    run(*inside, "ip", "link", "set", "lo", "up")
    run(*inside, "ip", "address", "replace", f"{plan.node_ip}/30", "dev", plan.node_link)
    run(*inside, "ip", "link", "set", plan.node_link, "up")
    run(*inside, "ip", "route", "replace", "default", "via", plan.host_ip)
    run(*inside, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    for destination in (plan.pod_cidr, plan.service_cidr):
        run("ip", "route", "replace", destination, "via", plan.node_ip)


def remove(plan: Plan) -> None:
    """Delete the link (its routes go with it) and the namespace."""
    if _exists(plan.host_link):
        run("ip", "link", "delete", plan.host_link)
    if plan.namespace in run("ip", "netns", "list").split():
        run("ip", "netns", "delete", plan.namespace)


def create_cgroups(plan: Plan) -> None:
    """Make the kubelet's root cgroup in every hierarchy (v1) or in the one of v2."""
    for folder in _hierarchies():
        (folder / plan.cgroup).mkdir(exist_ok=True)
        if folder.name == "cpuset":
            for name in ("cpuset.cpus", "cpuset.mems"):
                (folder / plan.cgroup / name).write_text((folder / name).read_text())


def end_cgroups(plan: Plan) -> None:
    """End every process of the instance's pods and remove their cgroups."""
    for folder in _hierarchies():
        root = folder / plan.cgroup
        for members in root.rglob("cgroup.procs"):
            end(int(pid) for pid in members.read_text().split())
    for folder in _hierarchies():
        root = folder / plan.cgroup
        for child in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
            if child.is_dir():
                _remove(child)
        if root.exists():
            _remove(root)


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):  # a process is still leaving: `down` tries again
        folder.rmdir()


def _hierarchies() -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and path.name != "unified"]


def _exists(link: str) -> bool:
    return Path(f"/sys/class/net/{link}").exists()
