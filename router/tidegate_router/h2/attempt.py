"""One try at one worker: a stream of a worker's connection."""

from __future__ import annotations

from typing import Protocol

from tidegate_router.core.faults import Outcome, judge_grpc
from tidegate_router.core.h2 import status
from tidegate_router.core.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_FRAME_BYTES,
    Code,
    pack_head,
)
from tidegate_router.core.h2.heads import WorkerHead
from tidegate_router.core.h2.link import Stream
from tidegate_router.core.h2.messages import MessageError, Splitter
from tidegate_router.core.rename import Renamed
from tidegate_router.core.request import Attempt

_CODES = {code.value: code.name for code in Code}
_NO_STATUS = "the worker's answer has no grpc-status"


class Owner(Protocol):
    """Who asks a worker something; a client's call, or a shadow copy."""

    def ready(self, attempt: Try) -> None:
        """A connection is there: send the request."""

    def forwarded(self, size_bytes: int) -> None:
        """So much of the request left."""

    def answer(self, attempt: Try, data: bytes) -> None:
        """Some of the answer's messages came; `credit` them to the try once they went on."""

    def ended(self, attempt: Try, outcome: Outcome, detail: str) -> None:
        """It is over; the worker has stopped or will not start."""


class Try(Stream):
    """What one worker is asked and answers.

    `head` is the answer's, `trailers` its end; `heard` whether any of it came. `sent` whether a
    byte of the request may have reached the worker.
    """

    __slots__ = ("attempt", "first_s", "head", "over", "owner", "renamed", "replies", "requests",
                 "sent", "started_s", "trailers", "waiting_at")  # fmt: skip

    def __init__(self, owner: Owner, attempt: Attempt, now_s: float) -> None:
        super().__init__()
        self.owner, self.attempt, self.started_s = owner, attempt, now_s
        self.first_s: float | None = None
        self.head: WorkerHead | None = None
        self.trailers: WorkerHead | None = None
        self.sent = self.over = False
        self.renamed: Renamed | None = None
        self.requests: Splitter | None = None
        self.replies: Splitter | None = None
        self.waiting_at: dict[Try, None] | None = None  # of a connection that is being made

    @property
    def heard(self) -> bool:
        """Whether the worker said anything."""
        return self.head is not None or self.trailers is not None

    def rename(self, method: str, encoding: bytes, limit_bytes: int) -> None:
        """Change the model's name both ways, message by message."""
        attempt = self.attempt
        renamed = self.renamed = Renamed(attempt.model, attempt.loaded_as)
        asked = renamed.streamed if method.endswith("/ModelStreamInfer") else renamed.message
        self.requests = Splitter(asked, limit_bytes, encoding)
        self.replies = Splitter(lambda one: renamed.grpc_answer(method, one), limit_bytes)

    def start_whole(self, block: bytes, message: bytes) -> bool:
        """Send a request of one piece if it fits; its windows and frames need no care then."""
        link, size_bytes = self.link, len(message)
        if (
            link is None
            or size_bytes > MAX_FRAME_BYTES
            or size_bytes > self.window_bytes
            or size_bytes > link.window_bytes
            or len(block) > MAX_FRAME_BYTES
            or link.blocked
            or link.owes_size
        ):
            return False
        self.sent = True
        self.sending = False
        link.window_bytes -= size_bytes
        link.moved += 1
        number, block_bytes = self.id, len(block)
        link.send(
            b"".join(
                (
                    pack_head(block_bytes >> 8, block_bytes & 0xFF, HEADERS, END_HEADERS, number),
                    block,
                    pack_head(size_bytes >> 8, size_bytes & 0xFF, DATA, END_STREAM, number),
                    message,
                )
            )
        )
        return True

    def start(self, block: bytes) -> None:
        """Send a request's head."""
        if self.link is not None:
            self.sent = True
            self.link.send_head(self, block, end=False)

    def send(self, data: bytes, *, end: bool) -> None:
        """Send messages, or some of one; MessageError where they must be read and cannot be."""
        link = self.link
        if link is None or not self.sending:
            return
        if self.requests is not None:
            self.owner.forwarded(len(data))
            data = self.requests.feed(data)
        if data or end:
            link.send_data(self, data, b"" if end else None)

    def on_sent(self, size_bytes: int) -> None:
        """Tell the owner, who knew it already where messages are changed."""
        if self.requests is None:
            self.owner.forwarded(size_bytes)

    def on_head(self, head: WorkerHead, *, end: bool) -> None:
        """Take head or trailers."""
        if end:
            self.trailers = head
            self._finish()
        elif self.head is None and head.http_status != 200:
            if head.http_status >= 200:
                self.trailers = head
                self._finish()
        elif self.head is None:
            self.head = head
            if self.replies is not None:
                self.replies.encoding = head.encoding
        else:
            self.give_up(Code.PROTOCOL_ERROR)
            self._over(Outcome.LOST, "a second head")

    def on_data(self, data: bytes, *, end: bool) -> None:
        """Take DATA; an answer that ends with it lacks its status."""
        if self.head is None:
            self.give_up(Code.PROTOCOL_ERROR)
            self._over(Outcome.LOST, "DATA before its head")
            return
        if data and self.replies is not None:
            self.credit(len(data))
            try:
                data = self.replies.feed(data)
            except MessageError as error:
                self.give_up(Code.CANCEL)
                self._over(Outcome.MODEL_ERROR, str(error))
                return
        if data:
            self.owner.answer(self, data)
        if end and not self.over:
            self._finish()

    def _finish(self) -> None:
        link, trailers = self.link, self.trailers
        if link is not None:
            if self.sending or self.receiving:
                link.drop(self, Code.CANCEL)
            else:
                link.forget(self)
        if trailers is not None and trailers.code == 0:
            self._over(Outcome.OK, "")
            return
        code, text = self.verdict()
        name = status.name_of(code)
        self._over(judge_grpc(name, text), name)

    def verdict(self) -> tuple[int, str]:
        """Return the answer's status and text."""
        trailers = self.trailers
        if trailers is None:
            return status.NUMBERS["INTERNAL"], _NO_STATUS
        if trailers.code is not None:
            return trailers.code, status.decode_message(trailers.message) if trailers.code else ""
        if trailers.http_status not in {0, 200}:
            text = f"the worker answered with HTTP status {trailers.http_status}"
            return status.of_http(trailers.http_status), text
        return status.NUMBERS["UNKNOWN"], _NO_STATUS

    def on_reset(self, code: int) -> bool:
        """The worker gave up: before it began, or in the midst."""
        if code == Code.REFUSED_STREAM:
            self._over(Outcome.NEVER_RAN, "stream refused")
        else:
            self._over(Outcome.LOST, f"stream reset: {_CODES.get(code, str(code))}")
        return False

    def lost(self, *, never_ran: bool = False) -> None:
        """The connection is gone, or took this stream no more."""
        if never_ran:
            self._over(Outcome.NEVER_RAN, "connection goes away")
        else:
            self._over(Outcome.LOST if self.sent else Outcome.UNREACHABLE, "connection lost")

    def unreachable(self, detail: str) -> None:
        """No connection could be made."""
        self._over(Outcome.UNREACHABLE, detail)

    def give_up(self, code: Code = Code.CANCEL) -> None:
        """Tell the worker to stop; `ended` is not called."""
        self.over = True
        if self.waiting_at is not None:
            self.waiting_at.pop(self, None)
            self.waiting_at = None
        if self.link is not None:
            self.link.drop(self, code)

    def _over(self, outcome: Outcome, detail: str) -> None:
        self.over = True
        self.owner.ended(self, outcome, detail)
