"""Which methods there are, and those that the router answers by itself."""

from collections.abc import Callable
from dataclasses import dataclass

from tidegate_api.names import DroppedReason
from tidegate_router.adapters.routes import Routes
from tidegate_router.core import protowire, report
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.h2.heads import ClientHead
from tidegate_router.core.h2.hpack import literal
from tidegate_router.core.path import pool_name
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Call
from tidegate_router.lane import clock

_SERVICE = "/inference.GRPCInferenceService/"
_HEALTH = "/grpc.health.v1.Health/Check"
Local = Callable[[bytes, ClientHead], bytes | Refusal]


@dataclass(frozen=True, slots=True)
class Method:
    """One method: asked of a worker, answered here (`local`), or refused."""

    path: str
    call: Call = Call.INQUIRY
    unary: bool = True
    local: Local | None = None
    refusal: Refusal | None = None
    encoded: bytes = b""  # :path, of what is asked of a worker


_RELAYED = (
    ("ModelInfer", Call.INFER, True),
    ("ModelStreamInfer", Call.STREAM, False),
    ("ModelMetadata", Call.INQUIRY, True),  # ModelConfig is one of Triton's guarded APIs
    ("ModelStatistics", Call.INQUIRY, True),
)
_FORBIDDEN = Method(
    _SERVICE,
    refusal=Refusal(
        DroppedReason.NOT_ALLOWED,
        "control APIs of a worker are not reachable through the router",
    ),
)
_NO_METHOD = Method("", refusal=Refusal(DroppedReason.NOT_ALLOWED, "there is no such method"))


class Methods:
    """The methods of one lane. `draining` makes it not ready."""

    __slots__ = ("_dispatcher", "_known", "_routes", "draining")

    def __init__(self, dispatcher: Dispatcher, routes: Routes) -> None:
        self._dispatcher, self._routes, self.draining = dispatcher, routes, False
        local: dict[str, Local] = {
            _HEALTH: self._health,
            f"{_SERVICE}ServerLive": lambda _message, _client: protowire.bool_message(value=True),
            f"{_SERVICE}ServerReady": self._ready,
            f"{_SERVICE}ServerMetadata": _metadata,
            f"{_SERVICE}ModelReady": self._model_ready,
        }
        known = [Method(path, local=answer) for path, answer in local.items()]
        known += [_relayed(_SERVICE + name, call, unary=unary) for name, call, unary in _RELAYED]
        self._known = {one.path.encode(): one for one in known}

    def find(self, path: bytes) -> Method:
        """Return a path's method; what is none is refused."""
        found = self._known.get(path)
        if found is not None:
            return found
        return _FORBIDDEN if path.startswith(_SERVICE.encode()) else _NO_METHOD

    def _serving(self) -> bool:
        return self._routes.ready and not self.draining

    def _health(self, _message: bytes, _client: ClientHead) -> bytes:
        return b"\x08\x01" if self._serving() else b"\x08\x02"

    def _ready(self, _message: bytes, _client: ClientHead) -> bytes:
        return protowire.bool_message(value=self._serving())

    def _model_ready(self, message: bytes, client: ClientHead) -> bytes | Refusal:
        try:
            named = protowire.scan(message)
        except protowire.WireError as error:
            return Refusal(DroppedReason.BAD_REQUEST, f"the message is no request: {error}")
        model = named.model or client.model
        if not model:
            text = "the message names no model (field 1, or metadata x-tidegate-model)"
            return Refusal(DroppedReason.BAD_REQUEST, text)
        if client.pool and isinstance(refused := pool_name(client.pool), Refusal):
            return refused
        version = named.version
        ready = report.model_ready(self._dispatcher, client.pool, model, version, clock())
        if ready is None:
            return Refusal(DroppedReason.UNKNOWN_MODEL, f"no pool serves model '{model}'")
        return protowire.bool_message(value=ready)


def _relayed(path: str, call: Call, *, unary: bool) -> Method:
    return Method(path, call, unary=unary, encoded=literal(b":path", path.encode()))


def _metadata(_message: bytes, _client: ClientHead) -> bytes:
    return protowire.string_field(1, "tidegate-router") + protowire.string_field(2, "0.1.0")
