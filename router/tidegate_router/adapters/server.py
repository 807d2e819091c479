"""aiohttp's server within this router's limits (router.md section 9).

A head must be complete HEAD_S after its first byte. What is no HTTP is answered like every other
refusal; its text, which may hold a credential, goes neither to the log nor back.
"""

import asyncio
import logging
from contextlib import AsyncExitStack

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tidegate_api.names import HEADER_DROPPED_REASON, DroppedReason

_log = logging.getLogger(__name__)
HEAD_S = 10.0
_KEEP_ALIVE_S = 75.0  # longer than tritonclient's pools keep a connection
_LINE_BYTES = 8190
_HEADERS = 64
BACKLOG = 1024
_SERVER = "tidegate-router"


async def listen(
    stack: AsyncExitStack,
    app: web.Application,
    host: str,
    port: int,
    shutdown_s: float,
    head_s: float = HEAD_S,
) -> int:
    """Serve until `stack` unwinds, then let requests in flight end for `shutdown_s`.

    Returns the port, which the system chose if 0 was asked for.
    """
    runner = web.AppRunner(app, shutdown_timeout=shutdown_s)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = _Site(runner, host, port, head_s)
    await site.start()
    return site.port


async def name_server(_request: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Say who answers, and no library's version."""
    answer.headers["Server"] = _SERVER


class Connection(web.RequestHandler):
    """One client connection, its own from the start or handed over by the fast lane."""

    __slots__ = ("_head_due", "_head_s")

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, head_s: float) -> None:
        super().__init__(
            manager,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to have none
            auto_decompress=False,  # a packed body goes to the worker as it came
            keepalive_timeout=_KEEP_ALIVE_S,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_HEADERS,
        )
        self._head_s = head_s
        self._head_due: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser; start or stop the time that a head may take."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before or self._current_request is not None:
            self._head_came()
        elif data and self._head_due is None:
            self._head_due = self._loop.call_later(self._head_s, self._head_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the timer."""
        self._head_came()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # aiohttp's signature; may quote the client
    ) -> web.StreamResponse:
        """Answer what was no HTTP, or what failed inside the router."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun: the connection is broken off")
        if isinstance(exc, HttpProcessingError | web.RequestPayloadError):
            status, reason = 400, DroppedReason.BAD_REQUEST
            text = "this is no HTTP/1.1 request"
        else:
            _log.error("a request failed inside the router", exc_info=exc)
            text, reason = "internal error of the router", DroppedReason.INTERNAL
        answer = web.json_response({"error": text}, status=status)
        answer.headers[HEADER_DROPPED_REASON] = reason.value
        answer.headers["Server"] = _SERVER
        answer.force_close()
        return answer

    def _head_late(self) -> None:
        self._head_due = None
        if self._current_request is None:
            self.force_close()

    def _head_came(self) -> None:
        if self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None


class _Site(web.BaseSite):
    """A listening socket whose connections are `Connection`s."""

    __slots__ = ("_head_s", "_host", "port")

    def __init__(self, runner: web.AppRunner, host: str, port: int, head_s: float) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._host, self.port, self._head_s = host, port, head_s

    @property
    def name(self) -> str:
        """The address for people."""
        return f"http://{self._host}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        loop, manager = asyncio.get_running_loop(), self._runner.server
        if manager is None:
            raise RuntimeError("the runner was not set up")
        server = await loop.create_server(
            lambda: Connection(manager, loop, self._head_s),
            self._host,
            self.port,
            backlog=self._backlog,
        )
        self._server, self.port = server, server.sockets[0].getsockname()[1]
