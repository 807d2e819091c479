"""GET /openapi.json: the text APIs and the probes as an OpenAPI 3.1 document.

`python -m tidegate_router.apidocument` prints it; docs/reference/openapi.json is that output.
"""

import json
import sys
from functools import cache

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tidegate_api import names
from tidegate_router.core import openai, path
from tidegate_router.core.path import Parsed

_Object = dict[str, object]
_MODELS: tuple[type[BaseModel], ...] = (
    openai.CompletionRequest,
    openai.Completion,
    openai.ErrorAnswer,
    openai.ModelList,
    openai.GenerateRequest,
    openai.GenerateAnswer,
    openai.PlainError,
)
_REFUSALS = {
    400: "The request, or a field of it, is not understood or not supported.",
    404: "No pool serves the model, or there is no such pool.",
    405: "The path takes another method.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the router takes.",
    415: "The body is packed.",
    429: "Every worker is at its limit: try again after Retry-After seconds.",
    500: "The model failed.",
    503: "No worker can be reached.",
    504: "No worker answered in time.",
}
_EVENT: _Object = {
    "description": "Each event: the JSON of an answer or a piece of one, and at last [DONE].",
    "type": "object",
    "properties": {"data": {"type": "string"}},
}
_ABOUT = (
    "The text APIs of a Tidegate router. Inference itself is the Open Inference Protocol v2 with "
    "Triton's extensions, under /v2, described in oip.openapi.json. Every path may have the prefix "
    "/pools/NAMESPACE/NAME. Every answer carries x-request-id; a refusal of the router itself "
    "carries x-tidegate-dropped-reason."
)


async def openapi(_parsed: Parsed, _request: web.Request) -> web.StreamResponse:
    """Answer with the document."""
    return web.Response(body=rendered(), content_type="application/json")


@cache
def rendered() -> bytes:
    """Return the document as committed."""
    return json.dumps(document(), indent=1).encode() + b"\n"


def document() -> _Object:
    """Return the OpenAPI document."""
    template = "#/components/schemas/{model}"
    _, schemas = models_json_schema(
        [(model, "validation") for model in _MODELS], ref_template=template
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate router",
            "version": "1",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": _paths(),
        "components": {
            "schemas": schemas["$defs"],
            "headers": {
                "DroppedReason": {
                    "description": "Why the router itself refused; absent where a worker did.",
                    "schema": {"enum": [one.value for one in names.DroppedReason]},
                }
            },
        },
    }


def _paths() -> _Object:
    return {
        path.COMPLETIONS: {"post": _completions()},
        path.MODELS: {"get": _models()},
        path.GENERATE: {"post": _generate("generate", "application/json")},
        path.GENERATE_STREAM: {"post": _generate("generateStream", "text/event-stream")},
        path.OPENAPI: {"get": _get("openapi", "This document.", {"type": "object"})},
        "/healthz": {"get": _probe("healthz", "The process runs.")},
        "/readyz": {"get": _probe("readyz", "The router has routes and is not draining.")},
    }


def _completions() -> _Object:
    ok = {
        "description": "The answer; with stream, chunks of it as events and then [DONE].",
        "content": {
            "application/json": {"schema": _ref("Completion")},
            "text/event-stream": {"schema": _EVENT},
        },
    }
    return {
        "operationId": "createCompletion",
        "summary": "Go on from a text.",
        "tags": ["text"],
        "parameters": _headers(),
        "requestBody": _body("CompletionRequest"),
        "responses": {"200": ok, **_refusals("ErrorAnswer", _REFUSALS)},
    }


def _generate(name: str, media: str) -> _Object:
    schema = _ref("GenerateAnswer") if media == "application/json" else _EVENT
    return {
        "operationId": name,
        "summary": "Triton's generate extension, with the model's name in the body.",
        "tags": ["text"],
        "parameters": _headers(),
        "requestBody": _body("GenerateRequest"),
        "responses": {
            "200": {"description": "The model's answer.", "content": {media: {"schema": schema}}},
            **_refusals("PlainError", _REFUSALS),
        },
    }


def _models() -> _Object:
    text = "The models that completions may name."
    found = _get("listModels", text, _ref("ModelList"), "ErrorAnswer")
    return found | {"parameters": _headers()[1:]}


def _get(name: str, text: str, schema: _Object, error: str = "PlainError") -> _Object:
    ok = {"description": text, "content": {"application/json": {"schema": schema}}}
    statuses = (400, 404, 405) if error == "ErrorAnswer" else (400, 405)
    refusals = {status: _REFUSALS[status] for status in statuses}
    return {
        "operationId": name,
        "summary": text,
        "tags": ["about"],
        "responses": {"200": ok, **_refusals(error, refusals)},
    }


def _probe(name: str, text: str) -> _Object:
    refusals = {status: _REFUSALS[status] for status in (400, 405)}
    return {
        "operationId": name,
        "summary": text,
        "tags": ["about"],
        "responses": {
            "200": {"description": text},
            "503": {"description": "Not so."},
            **_refusals("PlainError", refusals),
        },
    }


def _headers() -> list[_Object]:
    texts = {
        names.HEADER_MODEL: ("the model, where the body names none", openai.MODEL_PATTERN),
        names.HEADER_POOL: ("namespace/name of a pool", path.POOL_PATTERN),
    }
    return [
        {
            "name": name,
            "in": "header",
            "description": text,
            "schema": {"type": "string", "pattern": pattern},
        }
        for name, (text, pattern) in texts.items()
    ]


def _body(model: str) -> _Object:
    return {"required": True, "content": {"application/json": {"schema": _ref(model)}}}


def _refusals(model: str, texts: dict[int, str]) -> _Object:
    reason = {"$ref": "#/components/headers/DroppedReason"}
    return {
        str(status): {
            "description": text,
            "headers": {names.HEADER_DROPPED_REASON: reason},
            "content": {"application/json": {"schema": _ref(model)}},
        }
        for status, text in texts.items()
    }


def _ref(model: str) -> _Object:
    return {"$ref": f"#/components/schemas/{model}"}


if __name__ == "__main__":
    sys.stdout.buffer.write(rendered())
