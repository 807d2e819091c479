"""HTTP/1.1 as raw bytes over asyncio: keep-alive, one request at a time on each connection.

httptools frames the answers; of their heads only what is counted is looked at.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from httptools import HttpParserError, HttpResponseParser

from tidegate_api import names
from tidegate_cli.core.loadtest.outcome import Outcome, of_status
from tidegate_cli.core.loadtest.tally import Answered
from tidegate_cli.errors import ServerError
from tidegate_cli.loadtest.shot import Answers, Finished, Shot

_HEAD_END = b"\r\n\r\n"
_NOTED = (names.HEADER_REVISION, names.HEADER_WORKER, names.HEADER_DROPPED_REASON)
_FIELDS = re.compile(
    rb"\r\n(" + b"|".join(name.encode() for name in _NOTED) + rb"):[ \t]*([^\r]*)", re.IGNORECASE
)
_FRAMED = re.compile(rb"\r\n(content-length|transfer-encoding):", re.IGNORECASE)
_MAX_HEAD_BYTES = 64 * 1024
_PAUSE_S = 0.01  # after a refused connection: a dead port is asked 100 times a second, not 20 000


def _ignore(_shot: Shot, _answered: object) -> None:
    """Stand in until a loop says where answers go."""


class HttpClient:
    """Connections to one address; broken ones are made anew when they are needed next."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, timeout_s: float, answers: Answers
    ) -> None:
        self.finished: Finished = _ignore
        self.answers = answers
        self._host, self._port, self._tls, self._timeout_s = host, port, tls, timeout_s
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._limit = 0
        self._places = 0  # taken by connections, also by those that are being made
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, connections: int) -> None:
        """Open the first connection to see whether anybody is there; others follow with use."""
        self._limit, self._places = connections, 1
        try:
            self._idle.append(await self._connect())
        except OSError as error:
            text = f"{self._host}:{self._port} cannot be reached over http: {error}"
            raise ServerError(text) from error

    def send(self, shot: Shot) -> bool:
        """Send on an idle connection or a new one; False when the limit is reached."""
        while self._idle:
            connection = self._idle.pop()
            if connection.send(shot):
                return True
        if self._places >= self._limit:
            return False
        self._places += 1
        shot.sent_s = time.monotonic()
        task = asyncio.get_running_loop().create_task(self._send_anew(shot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def sweep(self, now_s: float) -> None:
        """Break connections whose answer is overdue."""
        for connection in [*self._all]:
            shot = connection.shot
            if shot is not None and now_s - shot.sent_s > self._timeout_s:
                connection.give_up()

    async def close(self) -> None:
        """Break every connection."""
        for task in self._tasks:
            task.cancel()
        for connection in [*self._all]:
            connection.shot = None
            connection.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def opened(self, connection: "_Connection") -> None:
        """Note a connection."""
        self._all.add(connection)

    def closed(self, connection: "_Connection") -> None:
        """Forget a connection."""
        if connection in self._all:
            self._all.discard(connection)
            self._places -= 1
        with suppress(ValueError):
            self._idle.remove(connection)

    def free(self, connection: "_Connection") -> None:
        """Take a connection back that got a whole answer."""
        self._idle.append(connection)

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        made: Callable[[], _Connection] = lambda: _Connection(self)  # noqa: E731  # typed
        name = self._host if self._tls else None
        async with asyncio.timeout(self._timeout_s):
            _, connection = await loop.create_connection(
                made, self._host, self._port, ssl=self._tls, server_hostname=name
            )
        return connection

    async def _send_anew(self, shot: Shot) -> None:
        sent_s = shot.sent_s
        try:
            connection = await self._connect()
        except OSError as error:
            await asyncio.sleep(_PAUSE_S)
            self._places -= 1
            self.finished(shot, self._not_connected(error))
            return
        if not connection.send(shot):
            self.finished(shot, self.answers.of(Outcome.RESET, "closed before it was used"))
        shot.sent_s = sent_s

    def _not_connected(self, error: OSError) -> Answered:
        if isinstance(error, TimeoutError):
            return self.answers.of(Outcome.TIMEOUT, "no connection in time")
        return self.answers.of(Outcome.CONNECT, f"cannot connect: {error.strerror or error}")


class _Connection(asyncio.Protocol):
    """One connection with at most one request in flight. Slots and locals: this is the hot path."""

    __slots__ = ("_body", "_client", "_head", "_parser", "_transport", "shot")

    def __init__(self, client: HttpClient) -> None:
        self.shot: Shot | None = None
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._body: list[bytes] = []
        self._parser = HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no such base class
        self._client.opened(self)

    def send(self, shot: Shot) -> bool:
        """Write a request; False on a connection that is closing."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        self.shot, self._head = shot, b""
        shot.sent_s = time.monotonic()
        transport.write(shot.payload.wire)
        return True

    def data_received(self, data: bytes) -> None:
        """Take a piece of an answer."""
        if self.shot is None:
            self.abort()  # bytes that nobody asked for
            return
        if _HEAD_END not in self._head:
            self._head += data if len(data) < _MAX_HEAD_BYTES else data[:_MAX_HEAD_BYTES]
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._broken(Outcome.ERROR, f"no HTTP answer: {error}")

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body where answers are compared."""
        if self._client.answers.compare:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Judge a whole answer; 100 Continue and its like are none."""
        status = self._parser.get_status_code()
        if status < 200:
            self._head = self._head.partition(_HEAD_END)[2]
            return
        self._judge(status, keep=self._parser.should_keep_alive())

    def connection_lost(self, exc: Exception | None) -> None:
        """Judge what was in flight: an answer without a length ends here, others are cut."""
        self._client.closed(self)
        if self.shot is None:
            return
        head, found, _ = self._head.partition(_HEAD_END)
        if found and exc is None and not _FRAMED.search(head):
            self._judge(self._parser.get_status_code(), keep=False)
        else:
            self._broken(Outcome.RESET, f"broken: {exc or 'closed before the whole answer'}")

    def give_up(self) -> None:
        """End a request that waits too long; its connection ends with it."""
        self._broken(Outcome.TIMEOUT, "timeout")

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _judge(self, status: int, *, keep: bool) -> None:
        shot, client = self.shot, self._client
        if shot is None:
            return
        self.shot = None
        found = dict(_FIELDS.findall(self._head.partition(_HEAD_END)[0]))
        noted = {name.lower(): value.decode("latin-1") for name, value in found.items()}
        outcome = of_status(status, noted.get(_NOTED_REASON, ""))
        if client.answers.compare:
            outcome = client.answers.checked(outcome, shot.payload, b"".join(self._body))
            self._body.clear()
        reason = noted.get(_NOTED_REASON, "")
        detail = "" if outcome is Outcome.OK else f"{status} {reason}".rstrip()
        answered = client.answers.of(
            outcome, detail, noted.get(_NOTED_REVISION, ""), noted.get(_NOTED_WORKER, "")
        )
        if keep and self._transport is not None:
            client.free(self)
        else:
            client.closed(self)
            self.abort()
        client.finished(shot, answered)

    def _broken(self, outcome: Outcome, detail: str) -> None:
        shot, self.shot = self.shot, None
        self._client.closed(self)
        self.abort()
        if shot is not None:
            self._client.finished(shot, self._client.answers.of(outcome, detail))


_NOTED_REVISION, _NOTED_WORKER, _NOTED_REASON = (name.encode() for name in _NOTED)
