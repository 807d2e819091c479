"""A body that is too large to be held: it goes from the client to a worker in pieces.

Until a worker takes it, the client's connection is not read; what was read already is held.
"""

from collections.abc import Callable

from tidegate_router.core.chunks import LAST, chunk
from tidegate_router.http1.workers import WorkerConnection


class Upload:
    """One body. `pause_client` and `resume_client` stop and go on with reading it."""

    __slots__ = (
        "_chunked",
        "_held",
        "_pause_client",
        "_paused",
        "_resume_client",
        "_worker",
        "complete",
        "framing",
    )  # fmt: skip

    def __init__(
        self,
        length: int | None,
        pause_client: Callable[[], None],
        resume_client: Callable[[], None],
    ) -> None:
        self._chunked = length is None
        chunks = b"Transfer-Encoding: chunked\r\n"
        self.framing = chunks if length is None else b"Content-Length: %d\r\n" % length
        self._pause_client, self._resume_client = pause_client, resume_client
        self._held: list[bytes] = []
        self._worker: WorkerConnection | None = None
        self._paused = False
        self.complete = False

    @property
    def waits_for_client(self) -> bool:
        """Whether the next byte has to come from the client."""
        return not (self.complete or self._paused) and self._worker is not None

    def attach(self, worker: WorkerConnection) -> None:
        """A worker takes it: send what is held, and read on."""
        self._worker = worker
        held, self._held = self._held, []
        for piece in held:
            self._send(piece)
        if self.complete:
            self._end()
        elif not self._paused:
            self._resume_client()

    def feed(self, piece: bytes) -> None:
        """Take a part of the body from the client."""
        if self._worker is None:
            self._held.append(piece)
        else:
            self._send(piece)

    def end(self) -> None:
        """The client has sent everything."""
        self.complete = True
        if self._worker is not None:
            self._end()

    def pause(self) -> None:
        """The worker does not keep up."""
        self._paused = True
        if not self.complete:
            self._pause_client()

    def resume(self) -> None:
        """It does again."""
        self._paused = False
        if not self.complete:
            self._resume_client()

    def _send(self, piece: bytes) -> None:
        worker = self._worker
        if worker is not None and worker.sending and piece:
            worker.transport.write(chunk(piece) if self._chunked else piece)

    def _end(self) -> None:
        worker = self._worker
        if worker is not None and worker.sending:
            if self._chunked:
                worker.transport.write(LAST)
            worker.sending = False
