"""The text APIs of the public port: thin handlers around the lane, which does the routing."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from tidegate_router.apidocument import openapi
from tidegate_router.apis.common import in_openai_shape
from tidegate_router.apis.completions import complete
from tidegate_router.apis.generate import generate
from tidegate_router.apis.models import models
from tidegate_router.core import path
from tidegate_router.core.path import Parsed

if TYPE_CHECKING:  # the lane imports this package
    from tidegate_router.http_lane import HttpLane

_OPENAI = frozenset({path.COMPLETIONS, path.MODELS})
Handler = Callable[[Parsed, web.Request], Awaitable[web.StreamResponse]]


def handlers(lane: "HttpLane") -> dict[str, Handler]:
    """Return what answers each of path.API_METHODS."""
    return {
        path.GENERATE: partial(generate, lane),
        path.GENERATE_STREAM: partial(generate, lane),
        path.COMPLETIONS: partial(complete, lane),
        path.MODELS: partial(models, lane),
        path.OPENAPI: openapi,
    }


def shaped(parsed: Parsed, refusal: web.StreamResponse) -> web.StreamResponse:
    """Return a refusal of the lane as the clients of its path read errors."""
    return in_openai_shape(refusal) if parsed.upstream in _OPENAI else refusal
