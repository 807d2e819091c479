"""A CPU quota for a process: cgroup v1 or v2, whichever this machine lets us write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PERIOD_US = 20_000  # short: the default of 100 ms would show as stalls of 75 ms
_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")


@contextmanager
def limited(pid: int, share: float, name: str) -> Iterator[None]:
    """Let a process use `share` of one core inside the block; RuntimeError where it cannot be."""
    try:
        group = _made(name, share)
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        raise RuntimeError(f"no CPU quota can be set here: {error}") from error
    try:
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _made(name: str, share: float) -> Path:
    quota_us = int(_PERIOD_US * share)
    if (_V1 / "cpu.cfs_quota_us").exists() or (_V1 / "cgroup.procs").exists():
        group = _V1 / f"tidegate-bench-{os.getpid()}-{name}"
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        return group
    (_V2 / "cgroup.subtree_control").write_text("+cpu")
    group = _V2 / f"tidegate-bench-{os.getpid()}-{name}"
    group.mkdir()
    (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
    return group
