"""What the text APIs share: the model that is meant, and errors in OpenAI's shape."""

from typing import TYPE_CHECKING

from aiohttp import web

from tidegate_api import names
from tidegate_api.names import DroppedReason
from tidegate_router.core import completions, textmodels
from tidegate_router.core.path import Parsed
from tidegate_router.core.refusal import Refusal

if TYPE_CHECKING:  # the lane imports this package
    from tidegate_router.http_lane import HttpLane


def pool_of(parsed: Parsed, request: web.Request) -> str:
    """Return "namespace/name" of the pool that the request names, or nothing."""
    return parsed.pool or request.headers.get(names.HEADER_POOL, "")


def model_of(
    lane: "HttpLane", parsed: Parsed, request: web.Request, given: str | None
) -> str | Refusal:
    """Return the model: of the body, of the header, or the only text model there is."""
    header = request.headers.get(names.HEADER_MODEL, "")
    if given and header and given != header:
        text = f"model: the body and header {names.HEADER_MODEL} name different ones"
        return Refusal(DroppedReason.BAD_REQUEST, text)
    dispatcher = lane.dispatcher
    return textmodels.chosen(
        dispatcher.names,
        dispatcher.pools,
        pool_of(parsed, request),
        given or header,
        bare_names=dispatcher.bare_names,
    )


async def plain_body(lane: "HttpLane", request: web.Request) -> bytes | Refusal:
    """Return a body that is going to be read here: it must not be packed."""
    packed = request.headers.get("Content-Encoding", "identity").strip().lower()
    if packed != "identity":
        text = f"Content-Encoding '{packed[:32]}' is not understood on this path"
        return Refusal(DroppedReason.BAD_REQUEST, text, http_override=415)
    return await lane.read_body(request)


def error_of(response: web.StreamResponse) -> str:
    """Return the message of an error of the lane or of a worker."""
    body = response.body if isinstance(response, web.Response) else None
    return completions.error_text(body if isinstance(body, bytes) else b"")


def in_openai_shape(response: web.StreamResponse, param: str = "") -> web.StreamResponse:
    """Return an error of the lane or of a worker with OpenAI's body; its headers stay."""
    if isinstance(response, web.Response):
        reason = response.headers.get(names.HEADER_DROPPED_REASON, "")
        message = error_of(response)
        response.body = completions.error_json(response.status, message, reason, param)
        response.headers["Content-Type"] = "application/json"
    return response
