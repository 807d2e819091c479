"""Programs that this process starts, and ends by pid; each logs into a file of its own."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE_S = 3.0
# Whoever ends us, with -9 too, ends what we started.
_PREFIX = ("setpriv", "--pdeathsig", "KILL", "nice", "-n")


@dataclass(slots=True)
class Program:
    """One program; it can be started again after its end."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    niceness: int = 5
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a session of its own; its words go to NAME.log."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_PREFIX, str(self.niceness), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | dict(self.environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return its pid; the prefix replaces itself by the program."""
        if self.process is None:
            raise RuntimeError(f"{self.name} is not started")
        return self.process.pid

    def child(self) -> int | None:
        """Return the pid of its first child, None while it has none."""
        try:
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return int(text.split()[0]) if text.strip() else None

    def kill_child(self) -> bool:
        """End its child at once (-9); False when there was none."""
        child = self.child()
        if child is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        return True

    def hold(self) -> int | None:
        """SIGSTOP its child; return the child's pid for `SIGCONT`."""
        child = self.child()
        if child is not None:
            os.kill(child, signal.SIGSTOP)
        return child

    def stop(self) -> None:
        """End its whole session: TERM, then KILL after some patience."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_PATIENCE_S)
        self.kill()

    def kill(self) -> None:
        """End its whole session at once."""
        if self.process is None:
            return
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def tail(self, characters: int = 2000) -> str:
        """Return its last words."""
        return (self.folder / f"{self.name}.log").read_text(errors="replace")[-characters:]

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def free_ports(count: int) -> list[int]:
    """Return TCP ports of 127.0.0.1 that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()
