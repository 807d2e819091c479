"""What the client of a stream has sent, kept so that it can be sent to another worker."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Inbox:
    """Messages of one stream, at most `limit_bytes` and one message more.

    They are kept from the first on, for as long as they may have to be sent again. Beyond the
    limit that ends: `replayable` turns false, what was sent is forgotten, and the client is read
    no faster than the worker takes.
    """

    limit_bytes: int
    replayable: bool = True
    _messages: deque[bytes] = field(default_factory=deque)
    _first: int = 0  # number of _messages[0]
    _held_bytes: int = 0
    _done: bool = False
    _moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def fill(self, source: AsyncIterator[bytes]) -> None:
        """Read the client's stream to its end."""
        try:
            async for message in source:
                async with self._moved:
                    await self._moved.wait_for(lambda: self._held_bytes <= self.limit_bytes)
                    self._messages.append(message)
                    self._held_bytes += len(message)
                    self.replayable = self.replayable and self._held_bytes <= self.limit_bytes
                    self._moved.notify_all()
        finally:
            async with self._moved:
                self._done = True
                self._moved.notify_all()

    async def first(self) -> bytes | None:
        """Return the first message once it is there; None if the client ended without any."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._messages or self._done)
            return self._messages[0] if self._messages else None

    async def read(self, *, answered: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield every message that is kept and all that follow.

        Those that were yielded are forgotten once the stream is `answered`, or cannot be
        replayed anyway.
        """
        number = self._first
        while (message := await self._at(number)) is not None:
            yield message
            number += 1
            if answered() or not self.replayable:
                await self._forget(number)

    async def _at(self, number: int) -> bytes | None:
        async with self._moved:
            await self._moved.wait_for(
                lambda: number < self._first + len(self._messages) or self._done
            )
            at = number - self._first
            return self._messages[at] if at < len(self._messages) else None

    async def _forget(self, number: int) -> None:
        async with self._moved:
            while self._first < number:
                self._held_bytes -= len(self._messages.popleft())
                self._first += 1
            self._moved.notify_all()
