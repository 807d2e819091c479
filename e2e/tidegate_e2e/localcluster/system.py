"""Programs of this machine: run one, start one that outlives us, find and end our own by pid.

ClusterError
  +-- CommandError        a program ended with an error; carries its last words
  +-- PrerequisiteError   something is missing that cannot be installed here; says how to get it
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tidegate_e2e.localcluster.progress import say

_SUPERVISE = (
    "trap 'kill \"$child\" 2>/dev/null; exit' TERM; "
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
    "busybox": "busybox-static",
    "git": "git",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
}


class ClusterError(RuntimeError):
    """The cluster could not be made; the text says what to do."""


class CommandError(ClusterError):
    """A program ended with an error."""


class PrerequisiteError(ClusterError):
    """Something is missing that this program cannot install."""


def run(*command: str, check: bool = True, stdin: str | None = None, quiet_s: float = 600) -> str:
    """Run a program and return its standard output; CommandError with its last words."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=quiet_s
    )
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise CommandError(f"{' '.join(command)} ended with {done.returncode}: {words}")
    return done.stdout


def stream(*command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a long program and pass its output on, line by line, as it comes."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, cwd=cwd
    )
    assert process.stdout is not None  # noqa: S101  # given by PIPE above
    tail: list[str] = []
    for line in process.stdout:
        say(f"    {line.rstrip()}")
        tail = [*tail[-20:], line]
    if process.wait():
        raise CommandError(f"{command[0]} ended with {process.returncode}: {''.join(tail)}")


def install_packages(needed: Iterable[str] = PACKAGES) -> None:
    """Install by name what is missing of Debian's packages, as root."""
    missing = sorted({PACKAGES[name] for name in needed if not _present(name)})
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PrerequisiteError(
            f"missing: {' '.join(missing)}; install these packages (on Debian: "
            f"apt-get install {' '.join(missing)}) or run as root on Debian"
        )
    say(f"    apt-get install {' '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends"]):
        names = missing if arguments[0] == "install" else []
        subprocess.run(
            ["apt-get", *arguments, *names], check=True, env=environment, stdout=subprocess.DEVNULL
        )


def _present(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name) is not None


def start(pid_file: Path, log: Path, command: Sequence[str]) -> None:
    """Start `command` under a supervisor in a session of its own, unless it runs already."""
    if running(pid_file):
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["bash", "-c", _SUPERVISE, "supervise", *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, cwd="/",
        )  # fmt: skip
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    pid_file.write_text(f"{process.pid} {_started(process.pid)}")


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


def processes_with(argument: str) -> list[int]:
    """Return the pids of processes whose command line holds `argument` (a path of ours)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            words = _read(entry / "cmdline").split("\0")
            if argument in words:
                found.append(int(entry.name))
    return found


def _owned_pid(pid_file: Path) -> int | None:
    words = _read(pid_file).split()
    if len(words) == 2 and _started(int(words[0])) == words[1]:
        return int(words[0])
    return None


def _started(pid: int) -> str:
    """Return the kernel's start time of a live process, "" for none; a pid alone is reused."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _signal_group(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _group_alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
