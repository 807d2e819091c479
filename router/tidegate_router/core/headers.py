"""Which headers cross the router (router.md sections 9 and 12)."""

from collections.abc import Iterable

from tidegate_api import names
from tidegate_api.names import DroppedReason
from tidegate_router.core.refusal import Refusal

Pairs = list[tuple[str, str]]

_HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
})  # fmt: skip
_OURS = frozenset({  # set by the router itself; a client's or worker's value means nothing
    names.HEADER_DROPPED_REASON, names.HEADER_WORKER, names.HEADER_REVISION,
    names.HEADER_ATTEMPTS, names.HEADER_EXPLAIN, names.HEADER_POOL, names.HEADER_MODEL,
    names.HEADER_REQUEST_ID, names.HEADER_DRAIN_ACK, names.HEADER_TIER, names.HEADER_CACHE,
})  # fmt: skip
_REFRAMED = frozenset({"host", "content-length", "expect"})
_SECRET = frozenset({names.HEADER_RESTRICTED_KEY})
PROTOCOL_PREFIX = "triton-grpc-protocol-"
_VERSIONS = frozenset({(1, 0), (1, 1)})
ONCE = frozenset({  # what is acted on: a second one would be another program's first
    "host", "content-length", "content-type", "content-encoding", "transfer-encoding",
    "inference-header-content-length", "expect", names.HEADER_POOL, names.HEADER_EXPLAIN,
    names.HEADER_REQUEST_ID, names.HEADER_TIER, names.HEADER_MODEL,
})  # fmt: skip


KEPT_FROM_WORKERS = _HOP_BY_HOP | _OURS | _REFRAMED | _SECRET
KEPT_FROM_CLIENTS = _HOP_BY_HOP | _OURS | _SECRET | {"content-length", "date", "server"}


def strip_request(headers: Iterable[tuple[str, str]]) -> Pairs:
    """Return a client's headers as a worker may see them: no framing, no hop, no key."""
    return _strip(headers, KEPT_FROM_WORKERS)


def strip_response(headers: Iterable[tuple[str, str]]) -> Pairs:
    """Return a worker's headers as a client may see them; the body is framed anew."""
    return _strip(headers, KEPT_FROM_CLIENTS)


def _strip(headers: Iterable[tuple[str, str]], dropped: frozenset[str]) -> Pairs:
    pairs = list(headers)
    named = {
        token.strip().lower()
        for name, value in pairs
        if name.lower() == "connection"
        for token in value.split(",")
    }
    gone = dropped | named
    return [
        (name, value)
        for name, value in pairs
        if name.lower() not in gone and not name.lower().startswith(PROTOCOL_PREFIX)
    ]


def check(headers: Iterable[tuple[str, str]], http_version: tuple[int, int]) -> Refusal | None:
    """Refuse heads that two programs could read differently (request smuggling)."""
    seen: dict[str, int] = {}
    values: dict[str, str] = {}
    for name, value in headers:
        seen[name.lower()] = seen.get(name.lower(), 0) + 1
        values[name.lower()] = value
    problem = (
        _version_problem(http_version)
        or _host_problem(seen, http_version)
        or _name_problem(seen)
        or _framing_problem(seen, values, http_version)
    )
    return Refusal(DroppedReason.BAD_REQUEST, problem) if problem else None


def _version_problem(http_version: tuple[int, int]) -> str:
    return "" if http_version in _VERSIONS else "only HTTP/1.0 and HTTP/1.1 are understood"


def _host_problem(seen: dict[str, int], http_version: tuple[int, int]) -> str:
    return "" if "host" in seen or http_version < (1, 1) else "header Host is missing"


def _name_problem(seen: dict[str, int]) -> str:
    for name, count in seen.items():
        if "_" in name:
            return "header names with an underscore are refused"
        if count > 1 and name in ONCE:
            return f"header {name} occurs {count} times"
    return ""


def _framing_problem(
    seen: dict[str, int], values: dict[str, str], http_version: tuple[int, int]
) -> str:
    if "upgrade" in seen:
        return "Upgrade is refused"
    if "transfer-encoding" not in seen:
        return ""
    if http_version < (1, 1) or "content-length" in seen:
        return "Transfer-Encoding is refused on HTTP/1.0 and beside Content-Length"
    if values["transfer-encoding"].strip().lower() != "chunked":
        return "Transfer-Encoding: only chunked is understood"
    return ""
