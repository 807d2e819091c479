"""GET /v1/models."""

from typing import TYPE_CHECKING

from aiohttp import web

from tidegate_router.apis.common import in_openai_shape, pool_of
from tidegate_router.core import textmodels
from tidegate_router.core.path import Parsed
from tidegate_router.core.refusal import Refusal

if TYPE_CHECKING:  # the lane imports this package
    from tidegate_router.http_lane import HttpLane


async def models(lane: "HttpLane", parsed: Parsed, request: web.Request) -> web.StreamResponse:
    """List the models that completions may name."""
    dispatcher = lane.dispatcher
    found = textmodels.listed(
        dispatcher.names,
        dispatcher.pools,
        pool_of(parsed, request),
        bare_names=dispatcher.bare_names,
    )
    if isinstance(found, Refusal):
        return in_openai_shape(lane.refuse(found))
    return web.Response(body=found.model_dump_json().encode(), content_type="application/json")
