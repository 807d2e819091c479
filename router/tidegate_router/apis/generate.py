"""POST /generate and /generate_stream: Triton's generate with the model's name in the body."""

from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from tidegate_api.names import DroppedReason
from tidegate_router.apis.common import model_of, plain_body
from tidegate_router.core import path
from tidegate_router.core.path import Parsed, Target
from tidegate_router.core.refusal import Refusal

if TYPE_CHECKING:  # the lane imports this package
    from tidegate_router.http_lane import HttpLane

_TARGETS = {path.GENERATE: Target.GENERATE, path.GENERATE_STREAM: Target.GENERATE_STREAM}


async def generate(lane: "HttpLane", parsed: Parsed, request: web.Request) -> web.StreamResponse:
    """Pass the body on as it came, less its member `model`."""
    body = await plain_body(lane, request)
    if isinstance(body, Refusal):
        return lane.refuse(body)
    split = _split(body)
    if isinstance(split, Refusal):
        return lane.refuse(split)
    named, rest = split
    model = model_of(lane, parsed, request, named)
    if isinstance(model, Refusal):
        return lane.refuse(model)
    meant = Parsed(
        target=_TARGETS[parsed.upstream],
        upstream=f"/v2/models/{model}{parsed.upstream}",
        model=model,
        pool=parsed.pool,
    )
    return await lane.send(meant, request, rest)


def _split(body: bytes) -> tuple[str | None, bytes] | Refusal:
    """Return the model that a body names and the body for a worker: unchanged if it names none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Refusal(DroppedReason.BAD_REQUEST, "the body is not JSON")
    if not isinstance(document, dict):
        return Refusal(DroppedReason.BAD_REQUEST, "the body is no JSON object")
    if "model" not in document:
        return None, body
    named = document.pop("model")
    if named == "" or not isinstance(named, str | None):
        return Refusal(DroppedReason.BAD_REQUEST, "model: expected a model's name")
    return named, orjson.dumps(document)
