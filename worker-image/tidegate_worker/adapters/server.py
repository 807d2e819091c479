"""The tritonserver process: start, log, end, and what a crash leaves behind."""

import asyncio
import logging
import os
import re
import secrets
import shutil
import signal
import stat
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tidegate_worker.core.errors import one_line
from tidegate_worker.core.serverflags import ServerPlan, command

_log = logging.getLogger("tritonserver")
_SHM = Path("/dev/shm")  # noqa: S108 - where the Python backend keeps its regions
_STUB = "triton_python_backend_stub"
_LINE_BYTES = 1 << 20
_LOG_END_S = 2.0
_EXIT_POLL_S = 0.05
_REAP_TRIES, _REAP_PAUSE_S = 40, 0.05
_TABLES = ("+-", "| ")  # its options, drawn over a hundred columns
_NO_GPU = "CudaDriverHelper has not been initialized"  # said as an error on every CPU machine
_GLOG = re.compile(r"^([IWEF])\d{4} \S+ \d+ (.*)$")
_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.ERROR}


def prepare_backends(installed: Path, target: Path) -> tuple[str, ...]:
    """Make a writable backend directory and return the backends' names.

    Triton changes the mode of the Python backend's stub, so that one is copied; others, which may
    be gigabytes, are linked.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for backend in sorted(installed.iterdir()) if installed.is_dir() else []:
        if backend.name == "python":
            shutil.copytree(backend, target / "python", symlinks=True)
            (target / "python").chmod(stat.S_IRWXU)
            with suppress(FileNotFoundError):
                (target / "python" / _STUB).chmod(stat.S_IRWXU)
        else:
            (target / backend.name).symlink_to(backend)
    return tuple(entry.name for entry in sorted(target.iterdir()) if _is_backend(entry))


def _is_backend(folder: Path) -> bool:
    library = folder / f"libtriton_{folder.name}.so"
    return library.is_file() or (folder / "model.py").is_file()


def new_key() -> str:
    """Return a random 256-bit key."""
    return secrets.token_hex(32)


def environment(libraries: str, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return tritonserver's environment: ours without TIDEGATE_*, its libraries first."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("TIDEGATE_")}
    paths = [libraries, kept.get("LD_LIBRARY_PATH", "")]
    joined = ":".join(path for path in paths if path)
    return {**kept, "LD_LIBRARY_PATH": joined} if joined else kept


@dataclass(slots=True)
class TritonProcess:
    """One start, in a process group of its own."""

    process: asyncio.subprocess.Process
    shm_prefix: str
    last_errors: deque[str] = field(default_factory=lambda: deque(maxlen=3))
    reader: asyncio.Task[None] | None = None

    async def wait(self) -> str:
        """Wait for the end, clean up, and say in words how it ended."""
        code = await self.exit_code()
        await self._end_group()
        if self.reader is not None:
            await asyncio.wait([self.reader], timeout=_LOG_END_S)
            self.reader.cancel()
        self._remove_regions()
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        words = "; ".join(self.last_errors)
        return one_line(f"tritonserver ended {how}{f': {words}' if words else ''}")

    async def exit_code(self) -> int:
        """Wait for the process alone.

        asyncio's own wait() ends when the output is closed as well, and a stub that hangs in user
        code keeps it open.
        """
        code = self.process.returncode
        while code is None:
            await asyncio.sleep(_EXIT_POLL_S)
            code = self.process.returncode
        return code

    def terminate(self) -> None:
        """Ask it to end: it lets running inferences finish until its exit timeout."""
        with suppress(ProcessLookupError):
            self.process.terminate()

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.process.kill()

    def kill_group(self) -> None:
        """End it and its stubs at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def _end_group(self) -> None:
        """End the stubs, and reap those that became ours as PID 1."""
        self.kill_group()
        for _ in range(_REAP_TRIES):
            if not self._reap():
                return
            await asyncio.sleep(_REAP_PAUSE_S)

    def _reap(self) -> bool:
        """Collect what ended; return whether children of the group remain."""
        try:
            os.waitpid(-self.process.pid, os.WNOHANG)
        except ChildProcessError:
            return False
        return True

    def _remove_regions(self) -> None:
        for region in _SHM.glob(f"{self.shm_prefix}*"):
            with suppress(OSError):
                region.unlink()

    async def read_log(self) -> None:
        """Turn the server's lines into ours, until its output closes."""
        stream = self.process.stdout
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:  # a line beyond 1 MiB is dropped
                continue
            if not line:
                return
            self._log_line(line.decode(errors="replace").rstrip())

    def _log_line(self, line: str) -> None:
        match = _GLOG.match(line)
        level = _LEVELS[match[1]] if match else logging.INFO
        if line.startswith(_TABLES) or _NO_GPU in line:
            level = logging.DEBUG
        text = match[2] if match else line
        if level >= logging.ERROR:
            self.last_errors.append(text)
        if text:
            _log.log(level, "%s", text[:4000])


async def start(plan: ServerPlan, env: Mapping[str, str]) -> TritonProcess:
    """Start tritonserver; OSError if the binary cannot run."""
    process = await asyncio.create_subprocess_exec(
        *command(plan),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
        start_new_session=True,
        limit=_LINE_BYTES,
    )
    started = TritonProcess(process, plan.shm_prefix)
    started.reader = asyncio.create_task(started.read_log())
    return started
