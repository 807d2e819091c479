"""What the router writes to a client: heads of its own and of workers' answers."""

import json
import time
from http import HTTPStatus

from tidegate_api import names
from tidegate_router.core.answer import AnswerHead, status_line
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Attempt, Route

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE, KEEP = b"Connection: close\r\n", b"Connection: keep-alive\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
_JSON = b"Content-Type: application/json; charset=utf-8\r\n"
_WORKER, _REVISION, _ATTEMPTS, _ID, _EXPLAIN, _DROPPED = (
    name.encode()
    for name in (
        names.HEADER_WORKER, names.HEADER_REVISION, names.HEADER_ATTEMPTS,
        names.HEADER_REQUEST_ID, names.HEADER_EXPLAIN, names.HEADER_DROPPED_REASON,
    )
)  # fmt: skip
_TIMING = names.HEADER_SERVER_TIMING.encode()
CLOSING = frozenset({400, 408, 413})  # after these the connection's next byte is not trusted


class Stamp:
    """The lines that every answer ends with; renewed once a second."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines = b""
        self.renew()

    def renew(self) -> None:
        """Take the time (RFC 9110 section 6.6.1)."""
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        self.lines = b"Date: %b\r\nServer: tidegate-router\r\n" % date.encode()


def marks(attempt: Attempt, attempts: int) -> bytes:
    """Return the headers that say who answered, up to the value of the request's id."""
    return b"%b: %b\r\n%b: %b\r\n%b: %d\r\n%b: " % (
        _WORKER, attempt.worker_name.encode(), _REVISION, attempt.revision.encode(),
        _ATTEMPTS, attempts, _ID,
    )  # fmt: skip


def timing(route: Route, going_s: float, now_s: float) -> bytes:
    """Return Server-Timing; `going_s`: of an attempt whose answer has only begun."""
    upstream_s, total_s = route.upstream_s + going_s, now_s - route.started_s
    return b"%b: queue;dur=%.2f, upstream;dur=%.2f, router;dur=%.2f\r\n" % (
        _TIMING, route.queue_s * 1e3, upstream_s * 1e3,
        max(0.0, total_s - route.queue_s - upstream_s) * 1e3,
    )  # fmt: skip


def explained(why: str) -> bytes:
    """Return the header that says why this worker."""
    return b"%b: %b\r\n" % (_EXPLAIN, why.encode("latin-1", "replace"))


def whole(answer: AnswerHead, body: bytes, lines: bytes) -> bytes:
    """Return a worker's whole answer with our lines."""
    if answer.bodiless:
        return b"%b%b\r\n" % (answer.block, lines)
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (answer.block, lines, len(body), body)


def plain(status: int, identity: bytes, lines: bytes, body: bytes = b"") -> bytes:
    """Return an answer of the router's own."""
    kind = _JSON if body else b""
    return b"%b%b%b%b: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status_line(status), kind, lines, _ID, identity, len(body), body,
    )  # fmt: skip


def own(head: bytes, identity: bytes, body: bytes) -> bytes:
    """Return an answer from its head without the request's id, and its body."""
    return b"%b%b: %b\r\n\r\n%b" % (head, _ID, identity, body)


def refused(refusal: Refusal, identity: bytes, revision: str, attempts: int, lines: bytes) -> bytes:
    """Return a refusal; `revision` is the one that was drawn, if any."""
    lines += b"%b: %b\r\n" % (_DROPPED, refusal.reason.value.encode())
    if revision:
        lines += b"%b: %b\r\n%b: %d\r\n" % (_REVISION, revision.encode(), _ATTEMPTS, attempts)
    if refusal.retry_after_s is not None:
        lines += b"Retry-After: %d\r\n" % max(1, round(refusal.retry_after_s))
    if refusal.http_status == HTTPStatus.METHOD_NOT_ALLOWED:
        lines += b"Allow: %b\r\n" % refusal.allow.encode()
    body = json.dumps({"error": refusal.message}).encode()
    return plain(refusal.http_status, identity, lines, body)
