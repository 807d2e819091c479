"""The socket below a Link: what a turn of the loop puts out leaves in one write."""

import asyncio
import logging
from typing import cast

from tidegate_router.core.h2.frames import ConnectionFault
from tidegate_router.core.h2.link import Link

_log = logging.getLogger(__name__)
_HIGH_WATER_BYTES = 256 * 1024


class Wire(Link, asyncio.Protocol):
    """A Link on a transport of any kind, TCP or TLS."""

    __slots__ = ()  # two bases with slots of their own cannot be joined: subclasses have them

    _transport: asyncio.Transport | None
    _loop: asyncio.AbstractEventLoop
    _flushing: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        stream = cast("asyncio.Transport", transport)  # uvloop's has no such base
        stream.set_write_buffer_limits(_HIGH_WATER_BYTES)
        self._transport = stream

    def wake(self) -> None:
        """Write at the end of this turn."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        out, transport = self.out, self._transport
        if self.blocked or not out or transport is None:
            return
        self.control_count = 0
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if not transport.is_closing():
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Take bytes; a fault ends the connection."""
        if self.dead:
            return
        try:
            self.receive(data)
        except ConnectionFault as fault:
            self.broken(fault)

    def broken(self, fault: ConnectionFault) -> None:
        """Tell the other side what it did, and close."""
        _log.debug("an HTTP/2 connection ends: %s", fault)
        self.fail(self.last_taken(), fault)
        self.hang_up()

    def last_taken(self) -> int:
        """Return the other side's last stream that was taken on."""
        return 0

    def hang_up(self) -> None:
        """Write what is there and close; whoever reads nothing is cut off."""
        self.dead = True
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self.blocked:
            transport.abort()
            return
        self._flush()
        transport.close()

    def pause_writing(self) -> None:
        """The other side reads too slowly."""
        self.blocked = True

    def resume_writing(self) -> None:
        """Go on."""
        self.blocked = False
        self.pump()
        if self.out:
            self._flush()
