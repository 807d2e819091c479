"""Which requests aiohttp's lane takes, after aiohttp's own parser."""

from aiohttp import web

from tidegate_api import names
from tidegate_api.names import DroppedReason
from tidegate_router.core import headers, path
from tidegate_router.core.path import Parsed
from tidegate_router.core.refusal import Refusal


def check(request: web.Request, parsed: Parsed) -> Refusal | None:
    """Refuse a head that is not exactly one request of the expected kind."""
    refused = headers.check(pairs(request), (request.version.major, request.version.minor))
    if refused is not None:
        return refused
    method = path.method(parsed)
    if request.method != method:
        text = f"{parsed.target.value} is a {method}"
        return Refusal(DroppedReason.BAD_REQUEST, text, http_override=405)
    if method == "GET" and request.body_exists:
        return Refusal(DroppedReason.BAD_REQUEST, "a GET carries no body")
    header = request.headers.get(names.HEADER_POOL)
    named = path.pool_name(header) if header is not None else ""
    return named if isinstance(named, Refusal) else None


def pairs(request: web.Request) -> headers.Pairs:
    """Return the headers as text; every byte survives."""
    return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.raw_headers]
