"""HTTP to workers: one client for the process, answers as raw bytes, errors mapped once.

UpstreamError
  +-- UnreachableError   no connection: no byte of the request left
  +-- BrokenError        the connection broke before the answer was complete
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from tidegate_router.core.headers import Pairs
from tidegate_router.core.rename import Renamed, RenamedStream
from tidegate_router.core.request import Attempt
from tidegate_router.lane import clock

_CONNECT_S = 1.5
_IDLE_S = 30.0
_READ_BYTES = 64 * 1024
_AT_ONCE_BYTES = 256 * 1024
_ADDRESS = re.compile(r"[0-9A-Za-z.:-]+")
_ABANDONED_S = 300.0


class UpstreamError(Exception):
    """A worker gave no complete answer."""


class UnreachableError(UpstreamError):
    """Nothing was sent."""


class BrokenError(UpstreamError):
    """Something may have been sent."""


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """What a worker is asked. `target` is path and query, as the client wrote them."""

    method: str
    target: str
    headers: Pairs
    body: bytes | None


@dataclass(frozen=True, slots=True)
class WorkerAnswer:
    """A complete answer; `seconds` from the first byte sent to the last received."""

    status: int
    headers: Pairs
    body: bytes
    seconds: float


class Upstream:
    """The pool of connections to all workers."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_IDLE_S, use_dns_cache=False, force_close=False
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=_READ_BYTES * 4,
            max_line_size=32 * 1024,
            max_field_size=32 * 1024,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ask(self, attempt: Attempt, request: WorkerRequest) -> WorkerAnswer:
        """Return the whole answer; raises UpstreamError.

        It is waited for longer than the attempt lasts: the worker computes on, and its slot is
        free when it ends. A worker that froze ends never, so there is an end to that too.
        """
        started_s = clock()
        async with self.open(attempt, request, attempt.timeout_s + _ABANDONED_S) as answer:
            body = await answer.read()
            return WorkerAnswer(answer.status, answer.headers, body, clock() - started_s)

    def open(
        self, attempt: Attempt, request: WorkerRequest, limit_s: float | None = None
    ) -> "OpenAnswer":
        """Return an answer to be read piece by piece, as a context manager."""
        limits = aiohttp.ClientTimeout(total=limit_s, sock_connect=_CONNECT_S)
        return OpenAnswer(self._session, attempt, request, limits)


class OpenAnswer:
    """An answer whose head has come. Leaving before its end closes the connection."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        attempt: Attempt,
        request: WorkerRequest,
        limits: aiohttp.ClientTimeout,
    ) -> None:
        self._names = Renamed(attempt.model, attempt.loaded_as) if attempt.loaded_as else None
        self._call = (session, attempt, _renamed(request, self._names), limits)
        self._response: aiohttp.ClientResponse | None = None
        self.status = 0
        self.headers: Pairs = []

    async def __aenter__(self) -> Self:
        session, attempt, request, limits = self._call
        data, framing = _framed(request.body)
        try:
            response = await session.request(
                request.method, _url(attempt, request.target), data=data,
                headers=[*request.headers, *framing], allow_redirects=False, timeout=limits,
            )  # fmt: skip
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, ValueError) as error:
            raise UnreachableError(_kind(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokenError(_kind(error)) from error
        self._response = response
        self.status = response.status
        self.headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.raw_headers
        ]
        return self

    async def read(self) -> bytes:
        """Return the rest of the body, with the model's own name in it and in `headers`."""
        try:
            body = await self._opened.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokenError(_kind(error)) from error
        if self._names is not None:
            self.headers, body = self._names.answer(self.status, self.headers, body)
        return body

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes, by whole lines where a name is put back into it."""
        try:
            if self._names is None:
                async for piece in self._opened.content.iter_any():
                    yield piece
                return
            renamed = RenamedStream(self._names)
            async for piece in self._opened.content.iter_any():
                if lines := renamed.feed(piece):
                    yield lines
            if rest := renamed.end():
                yield rest
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BrokenError(_kind(error)) from error

    @property
    def _opened(self) -> aiohttp.ClientResponse:
        if self._response is None:
            raise BrokenError("not opened")
        return self._response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._response is None:
            return
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _renamed(request: WorkerRequest, names: Renamed | None) -> WorkerRequest:
    """Return a request as a worker that loaded the model under another name understands it."""
    if names is None:
        return request
    headers = names.request_headers(request.headers)
    return WorkerRequest(request.method, names.target(request.target), headers, request.body)


def _url(attempt: Attempt, target: str) -> URL:
    """Return where a request goes; ValueError for an address that is none."""
    if not _ADDRESS.fullmatch(attempt.address):
        raise ValueError("no address")
    host = f"[{attempt.address}]" if ":" in attempt.address else attempt.address
    return URL(f"http://{host}:{attempt.http_port}{target}", encoded=True)


def _framed(body: bytes | None) -> tuple[bytes | AsyncIterator[bytes] | None, Pairs]:
    """Return what to send and its framing: large bodies in pieces, so that others get a turn."""
    if body is None or len(body) <= _AT_ONCE_BYTES:
        return body, []
    return _pieces(body), [("Content-Length", str(len(body)))]


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    view = memoryview(body)
    for at in range(0, len(view), _AT_ONCE_BYTES):
        yield bytes(view[at : at + _AT_ONCE_BYTES])


def _kind(error: BaseException) -> str:
    """Name an error without its text, which may quote what a worker sent."""
    return type(error).__name__
