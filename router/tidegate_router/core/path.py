"""Paths that the public port answers, and nothing else (router.md sections 2 and 9).

An allow-list: model and server calls of the Open Inference Protocol v2, Triton's generate and the
text APIs, each also under /pools/NAMESPACE/NAME. Repository, shared-memory, trace and logging APIs
are refused.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from tidegate_api.names import DroppedReason
from tidegate_router.core.refusal import Refusal


class Target(StrEnum):
    """What a path asks for."""

    HEALTHZ = "healthz"
    READYZ = "readyz"
    SERVER = "server"  # GET /v2
    SERVER_LIVE = "serverLive"
    SERVER_READY = "serverReady"
    MODEL_READY = "modelReady"
    INQUIRY = "inquiry"  # metadata, config, stats: answered by any worker
    INFER = "infer"
    GENERATE = "generate"
    GENERATE_STREAM = "generateStream"
    API = "api"  # one of API_METHODS: answered over aiohttp


@dataclass(frozen=True, slots=True)
class Parsed:
    """A path that is allowed. `upstream` is what a worker is asked, without a pool's prefix."""

    target: Target
    upstream: str
    model: str = ""
    version: str = ""
    pool: str = ""  # "namespace/name" from a prefix


POST_TARGETS = frozenset({Target.INFER, Target.GENERATE, Target.GENERATE_STREAM})
STREAM_TARGETS = frozenset({Target.GENERATE_STREAM})

GENERATE = "/generate"
GENERATE_STREAM = "/generate_stream"
COMPLETIONS = "/v1/completions"
MODELS = "/v1/models"
OPENAPI = "/openapi.json"
API_METHODS = {
    GENERATE: "POST",
    GENERATE_STREAM: "POST",
    COMPLETIONS: "POST",
    MODELS: "GET",
    OPENAPI: "GET",
}

_SERVER = {
    "/v2": Target.SERVER,
    "/v2/": Target.SERVER,
    "/v2/health/live": Target.SERVER_LIVE,
    "/v2/health/ready": Target.SERVER_READY,
}
_PROCESS = {"/healthz": Target.HEALTHZ, "/readyz": Target.READYZ}
_VERBS = {
    "": Target.INQUIRY,
    "config": Target.INQUIRY,
    "stats": Target.INQUIRY,
    "ready": Target.MODEL_READY,
    "infer": Target.INFER,
    "generate": Target.GENERATE,
    "generate_stream": Target.GENERATE_STREAM,
}
_LABEL = r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"
POOL_PATTERN = rf"^{_LABEL}/{_LABEL}$"
_POOL = re.compile(rf"/pools/(?P<namespace>{_LABEL})/(?P<name>{_LABEL})(?P<rest>/.*)")
_MODEL = re.compile(
    r"/v2/models/(?P<model>[A-Za-z0-9][A-Za-z0-9._+=@,-]{0,99})"
    r"(?:/versions/(?P<version>[0-9]{1,18}))?(?:/(?P<verb>[a-z_]+))?"
)
_CONTROL = re.compile(
    r"/v2/(repository|systemsharedmemory|cudasharedmemory|shared_memory|trace|logging)(/|$)"
    r"|/v2/models/[^/]+(/versions/[^/]+)?/trace(/|$)"
)
_HIDDEN = re.compile(r"%|\\|#|//|/\.{1,2}(/|$)|[^\x21-\x7e]")
_MAX_CHARACTERS = 1024


def parse(path: str) -> Parsed | Refusal:
    """Parse a raw path without its query."""
    hidden = _HIDDEN.search(path)
    if hidden or not path.startswith("/") or len(path) > _MAX_CHARACTERS:
        return _refused("percent escapes, //, dot segments and long paths are refused")
    if path in _PROCESS:
        return Parsed(_PROCESS[path], path)
    pool, rest = "", path
    prefix = _POOL.fullmatch(path)
    if prefix:
        pool, rest = f"{prefix['namespace']}/{prefix['name']}", prefix["rest"]
    if rest in _SERVER:
        return Parsed(_SERVER[rest], rest, pool=pool)
    if rest in API_METHODS:
        return Parsed(Target.API, rest, pool=pool)
    found = _MODEL.fullmatch(rest)
    verb = found["verb"] or "" if found else None
    if found is None or verb not in _VERBS:
        return _unknown(rest)
    return Parsed(_VERBS[verb], rest, found["model"], found["version"] or "", pool)


def method(parsed: Parsed) -> str:
    """Return the one method that a path takes."""
    if parsed.target is Target.API:
        return API_METHODS[parsed.upstream]
    return "POST" if parsed.target in POST_TARGETS else "GET"


def _unknown(path: str) -> Refusal:
    if _CONTROL.match(path):
        return _refused("control APIs of a worker are not reachable through the router")
    return Refusal(DroppedReason.NOT_ALLOWED, "no such path", None, http_override=404)


def _refused(text: str) -> Refusal:
    return Refusal(DroppedReason.NOT_ALLOWED, text)


def pool_name(value: str) -> str | Refusal:
    """Return the value of HEADER_POOL if it is "namespace/name"."""
    if re.fullmatch(rf"{_LABEL}/{_LABEL}", value):
        return value
    return Refusal(DroppedReason.BAD_REQUEST, "header x-tidegate-pool: expected namespace/name")
