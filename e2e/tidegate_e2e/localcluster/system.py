"""Programs of this machine: run one, start one that outlives us, find and end our own by pid.

ClusterError
  +-- CommandError        a program ended with an error; carries its last words
  +-- PrerequisiteError   something is missing that cannot be installed here; says how to get it
"""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tidegate_e2e.localcluster.progress import say

_SUPERVISE = (
    "cd /; trap 'kill \"$child\" 2>/dev/null; exit' TERM; "
    'while :; do "$@" & child=$!; wait "$child"; sleep 1; done'
)
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "socat": "socat",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}
TEST_PACKAGES = {"prometheus": "prometheus"}  # beside a cluster's, for `make test`


class ClusterError(RuntimeError):
    """The cluster could not be made; the text says what to do."""


class CommandError(ClusterError):
    """A program ended with an error."""


class PrerequisiteError(ClusterError):
    """Something is missing that this program cannot install."""


def run(*command: str, check: bool = True, limit_s: float = 600, cwd: Path | None = None) -> str:
    """Run a program and return its standard output; CommandError with its last words."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=limit_s, cwd=cwd
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(command)} did not end within {limit_s:.0f} s") from error
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise CommandError(f"{' '.join(command)} ended with {done.returncode}: {words}")
    return done.stdout


def stream(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a long program and pass its output on, line by line, as it comes."""
    tail: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=cwd
    ) as process:
        for line in process.stdout or ():
            say(f"    {line.rstrip()}")
            tail = [*tail[-20:], line]
    if process.returncode:
        raise CommandError(f"{command[0]} ended with {process.returncode}: {''.join(tail)}")


def install_packages(needed: Iterable[str] = PACKAGES) -> None:
    """Install by name what is missing of Debian's packages, as root."""
    known = PACKAGES | TEST_PACKAGES
    missing = sorted({known[name] for name in needed if not _present(name)})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PrerequisiteError(
            f"missing: {' '.join(missing)}; install these packages (on Debian: "
            f"apt-get install {' '.join(missing)}) or run as root on Debian"
        )
    say(f"    apt-get install {' '.join(missing)}")
    os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def _present(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name) is not None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, so that two terminals do not start or stop one instance at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"    waiting for another process that holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def start(pid_file: Path, log: Path, command: Sequence[str], enter: Sequence[str] = ()) -> None:
    """Start `command` under a supervisor in a session of its own, unless it runs already.

    `enter` is a prefix that replaces itself by the command (nsenter). What a killed supervisor, or
    a `start` killed before it wrote the pid, left running is ended first: it would hold the ports.
    """
    if running(pid_file):
        return
    supervisor = ["bash", "-c", _SUPERVISE, "supervise", *command]
    end_all(lambda: processes_of(command))
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
        files = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 0)]
        files += [(os.POSIX_SPAWN_DUP2, output.fileno(), number) for number in (1, 2)]
        pid = os.posix_spawnp(
            [*enter, *supervisor][0], [*enter, *supervisor], os.environ,
            file_actions=files, setsid=True,
        )  # fmt: skip
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    pid_file.write_text(f"{pid} {_started(pid)}")


def running(pid_file: Path) -> bool:
    """Return whether the process that we once started, not a later one of that pid, lives."""
    return _owned_pid(pid_file) is not None


def stop(pid_file: Path, patience_s: float = 5) -> None:
    """End a supervisor and its program: TERM to their group, KILL after `patience_s`."""
    pid = _owned_pid(pid_file)
    if pid is not None:
        _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + patience_s
        while _group_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        _signal_group(pid, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


def end(pids: Iterable[int]) -> None:
    """End processes at once, by pid."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def end_all(find: Callable[[], Sequence[int]], patience_s: float = 10) -> None:
    """End what `find` finds until it finds nothing; a process in a system call leaves late."""
    deadline = time.monotonic() + patience_s
    while pids := find():
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {list(pids)} do not end: look at /proc/PID/stack")
        end(pids)
        time.sleep(0.05)


def processes_with(argument: str) -> list[int]:
    """Return the pids of processes that have `argument` (a path of ours) as a whole argument."""
    return [pid for pid in _pids() if argument in arguments_of(pid)]


def processes_of(command: Sequence[str]) -> list[int]:
    """Return the pids of processes whose arguments end as `command`'s do: it and its supervisor.

    The program's own path does not count: an older build of it is the same component.
    """
    end = list(command[1:] or command)
    return [pid for pid in _pids() if arguments_of(pid)[-len(end) :] == end]


def processes_inside(namespace: Path) -> list[int]:
    """Return the pids of processes whose network namespace is the one mounted at `namespace`."""
    if not namespace.exists():
        return []
    inode = namespace.stat().st_ino
    return [pid for pid in _pids() if _link(Path(f"/proc/{pid}/ns/net")) == f"net:[{inode}]"]


def arguments_of(pid: int) -> list[str]:
    """Return a process's command line, [] once it is gone."""
    return _read(Path(f"/proc/{pid}/cmdline")).split("\0")[:-1]


def _pids() -> list[int]:
    names = (entry.name for entry in Path("/proc").iterdir())
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _owned_pid(pid_file: Path) -> int | None:
    words = _read(pid_file).split()
    if len(words) == 2 and _started(int(words[0])) == words[1]:
        return int(words[0])
    return None


def _started(pid: int) -> str:
    """Return the kernel's start time of a live process, "" for none; a pid alone is reused."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """Return /proc/PID/stat from the state on (proc(5)); [] for none and for a zombie."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields if fields and fields[0] != "Z" else []


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _group_alive(group: int) -> bool:
    """Whether a live process is in the group; zombies wait for their parent, not for us."""
    return any(fields[2] == str(group) for fields in map(_stat, _pids()) if fields)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
