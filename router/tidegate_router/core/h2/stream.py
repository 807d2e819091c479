"""One stream of an HTTP/2 connection: its windows, and what its owner is told."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tidegate_router.core.h2 import frames, limits

if TYPE_CHECKING:
    from tidegate_router.core.h2.link import Link

_CREDIT_STREAM_AT_BYTES = limits.STREAM_WINDOW_BYTES // 4


class Stream:
    """One stream; what uses it says in a subclass what its events mean.

    `sending` and `receiving`: the side's half is open. `unsent`: DATA that no window has room for;
    `tail` what follows it: None nothing yet, b"" the end, else a block of trailers.
    """

    __slots__ = ("id", "link", "owed_bytes", "receiving", "room_bytes", "sending", "tail",
                 "unsent", "window_bytes")  # fmt: skip

    def __init__(self) -> None:
        self.id = 0
        self.link: Link | None = None
        self.window_bytes = 0  # what we may send
        self.room_bytes = limits.STREAM_WINDOW_BYTES  # what the other side may send
        self.owed_bytes = 0
        self.sending = self.receiving = True
        self.unsent: deque[bytes] | None = None
        self.tail: bytes | None = None

    def begin(self, *, end: bool) -> None:
        """A client opened it; `end`: without anything to follow."""

    def on_data(self, data: bytes, *, end: bool) -> None:
        """Take DATA; `credit` it once it went on."""

    def on_reset(self, code: int) -> bool:
        """The other side gave up, or the connection is gone. True: it counts as abuse."""
        del code
        return True

    def on_sent(self, size_bytes: int) -> None:
        """So much of what was given to `send_data` left."""

    def credit(self, size_bytes: int) -> None:
        """Let the other side send as much again."""
        self.owed_bytes += size_bytes
        link = self.link
        if self.receiving and self.owed_bytes >= _CREDIT_STREAM_AT_BYTES and link is not None:
            self.room_bytes += self.owed_bytes
            link.send(frames.window_update(self.id, self.owed_bytes))
            self.owed_bytes = 0
