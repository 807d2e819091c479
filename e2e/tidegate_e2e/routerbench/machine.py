"""Programs on one core each, and what /proc says that they cost."""

import http.client
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tidegate_e2e.ptier.processes import Program

LOAD_CORE, ROUTER_CORE = 0, 1
LOAD_BOUND_RATIO = 0.9  # of the load core: above it the router may not be what is measured
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PATIENCE_S = 30.0


@dataclass(slots=True)
class Bench:
    """The folder of a run and what it started; everything ends with it."""

    folder: Path
    _stack: ExitStack = field(default_factory=ExitStack)
    _number: int = 0

    def start(
        self,
        name: str,
        command: Sequence[str],
        core: int,
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        """Start a program on one core."""
        self._number += 1
        pinned = ("taskset", "-c", str(core), *command)
        label = f"{self._number}-{name}"
        program = Program(label, pinned, self.folder, environment or {}, niceness=0)
        program.start()
        self._stack.callback(program.kill)
        return program

    @contextmanager
    def part(self) -> Iterator["Bench"]:
        """Yield a bench whose programs end with the block."""
        part = Bench(self.folder, _number=self._number + 1000)
        with part._stack:  # of the same class
            yield part

    def close(self) -> None:
        """End everything."""
        self._stack.close()


def wait_ready(port: int, program: Program, path: str = "/readyz") -> None:
    """Wait until an HTTP server answers with 200."""
    until(
        lambda: status_of(port, path) == http.HTTPStatus.OK,
        f"{program.name} does not answer on {port}{path}",
        program,
    )


def until(condition: Callable[[], bool], words: str, program: Program) -> None:
    """Wait for a condition; RuntimeError with the program's last words when it does not come."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not condition():
        ended = program.process is not None and program.process.poll() is not None
        if ended or time.monotonic() > deadline_s:
            raise RuntimeError(f"{words}: {program.tail()}")
        time.sleep(0.05)


def status_of(
    port: int, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> int | None:
    """Return an answer's status; None while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    sent = {"content-type": "application/json", **(headers or {})}
    try:
        connection.request("GET" if body is None else "POST", path, body, sent)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return answer.status


def _family(pid: int) -> Iterator[int]:
    """Yield a process and everything below it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in children:
        yield from _family(int(child))


def cpu_s(pid: int) -> float:
    """Return the CPU seconds, user and system, of a process and everything below it."""
    total = 0
    for one in _family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * _TICK_S


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process and everything below it."""
    return sum(
        int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE_BYTES for one in _family(pid)
    )


def reset_peak(pid: int) -> None:
    """Begin a new peak of resident memory (proc(5), clear_refs 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """Return the peak of resident memory since `reset_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no VmHWM")


def output_of(command: Sequence[str]) -> str:
    """Return what a command prints on stdout and stderr; it must succeed."""
    done = subprocess.run(command, check=True, text=True, capture_output=True)
    return (done.stdout + done.stderr).strip()
