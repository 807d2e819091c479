"""The instance's network namespace, its link to the host, and the cgroups of its pods."""

import contextlib
import os
import time
from pathlib import Path

from tidegate_e2e.localcluster.plan import Plan
from tidegate_e2e.localcluster.system import CommandError, end_all, run

_CGROUPS = Path("/sys/fs/cgroup")


def enter(plan: Plan) -> list[str]:
    """Return the prefix that runs a command in the namespace.

    nsenter, not `ip netns exec`: that one remounts /sys and hides the cgroups from the kubelet.
    """
    return ["nsenter", f"--net={plan.namespace_file}"]


def create(plan: Plan) -> None:
    """Make namespace, veth pair and routes; what exists is kept."""
    if not _usable(plan):
        remove(plan)
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
    if plan.namespace_file.exists():
        run("ip", "netns", "delete", plan.namespace)


def _usable(plan: Plan) -> bool:
    """Whether the namespace can be entered; after a reboot only its file may be left."""
    try:
        run(*enter(plan), "true")
    except CommandError:
        return False
    return True


def create_cgroups(plan: Plan) -> None:
    """Make the kubelet's root cgroup in every hierarchy (v1) or in the one of v2."""
    for folder in _hierarchies():
        (folder / plan.cgroup).mkdir(exist_ok=True)
        if folder.name == "cpuset":
            for name in ("cpuset.cpus", "cpuset.mems"):
                (folder / plan.cgroup / name).write_text((folder / name).read_text())


def end_pods(plan: Plan) -> None:
    """End every process of the instance's pods."""
    end_all(lambda: _members(plan))


def remove_cgroups(plan: Plan, patience_s: float = 10) -> None:
    """Remove the pods' cgroups; the kernel refuses while a process is still leaving."""
    deadline = time.monotonic() + patience_s
    while any(not _remove(folder / plan.cgroup) for folder in _hierarchies()):
        if time.monotonic() > deadline:
            raise CommandError(f"cgroup {plan.cgroup} below {_CGROUPS} cannot be removed")
        time.sleep(0.1)


def _members(plan: Plan) -> list[int]:
    found: set[int] = set()
    for folder in _hierarchies():
        for group in _groups(folder / plan.cgroup):
            with contextlib.suppress(OSError):  # its last process left meanwhile
                found.update(int(pid) for pid in (group / "cgroup.procs").read_text().split())
    return sorted(found)


def _remove(root: Path) -> bool:
    """Remove a cgroup and all below it, the deepest first; False when something is in use."""
    for folder in sorted(_groups(root), key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):
            folder.rmdir()
    return not root.exists()


def _groups(root: Path) -> list[Path]:
    """Return a cgroup and all below it; what goes away meanwhile is left out."""
    return [Path(folder) for folder, _, _ in os.walk(root)]


def _hierarchies() -> list[Path]:
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir()]


def _exists(link: str) -> bool:
    return Path(f"/sys/class/net/{link}").exists()
