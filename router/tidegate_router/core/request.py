"""What passes between a lane (HTTP, gRPC) and the dispatcher for one request."""

from dataclasses import dataclass, field
from enum import StrEnum

from tidegate_api.routetable import RetryPolicy
from tidegate_router.core.ewma import PeakLatency
from tidegate_router.core.faults import Outcome
from tidegate_router.core.pins import Given
from tidegate_router.core.refusal import Refusal

Queue = tuple[str, str, str]  # pool UID, revision, model


class Call(StrEnum):
    """What kind of request it is."""

    INFER = "infer"  # unary inference: slots, analysis and retries
    STREAM = "stream"  # one stream to one worker; retried only until its first answer
    INQUIRY = "inquiry"  # metadata, config, statistics: any worker, no slot, not counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a client wants, in terms common to both protocols.

    `pool` is "namespace/name" or empty; `version` empty means the one that is served.
    `timeout_s` is the client's own deadline from now (gRPC's; None over HTTP). `replayable`: the
    whole request is in memory and may be sent again. `body_hash` names a replayable body for the
    poison rule; empty switches that off. `given`: headers or metadata, for pins. `sequence`: the
    id of the sequence that the request is part of; only models with that trait look at it.
    """

    model: str
    version: str = ""
    pool: str = ""
    call: Call = Call.INFER
    timeout_s: float | None = None
    replayable: bool = True
    body_hash: str = ""
    given: Given = frozenset()
    sequence: str = ""


@dataclass(slots=True, kw_only=True)
class Route:
    """One request on its way: created by `plan`, owned by its lane, changed by the dispatcher only.

    Times are on the lane's monotonic clock, in seconds. `pinned`: by a version or a pin, so no
    analysis counts it. `revision` is another than `drawn` once the last attempt of a failed canary
    request goes to stable.
    """

    ask: Ask
    number: int  # order of arrival
    pool_uid: str
    namespace: str
    pool: str
    revision: str
    drawn: str
    pinned: bool
    started_s: float
    deadline_s: float
    hold_until_s: float
    retry: RetryPolicy
    attempts: int = 0
    free_retries: int = 0
    paid_retries: int = 0
    losses: int = 0
    answered: bool = False  # a byte of an answer went to the client: no more retries
    idempotent: bool = False  # of the model that runs it, known from the first attempt
    finished: bool = False
    woken: bool = False  # left its place in the queue to ask again
    tried: set[str] = field(default_factory=set)  # ids of workers that answered or broke
    last_fault: str = ""  # a text for people about the last failed attempt
    last_outcome: Outcome | None = None
    accelerator: str = ""  # class of the last attempt's worker

    @property
    def rescued(self) -> bool:
        """Whether another revision than the drawn one has it: what comes counts for neither."""
        return self.revision != self.drawn

    @property
    def queue(self) -> Queue:
        """The key of the queue that this request waits in."""
        return (self.pool_uid, self.revision, self.ask.model)


@dataclass(slots=True)
class Slot:
    """What this router knows of (worker, revision, model); outlives the table that named it."""

    in_flight: int = 0
    latency: PeakLatency = field(default_factory=PeakLatency)


@dataclass(frozen=True, slots=True)
class Considered:
    """One candidate that a pick drew, with what its cost was made of."""

    worker: str
    weight: float
    in_flight: int
    latency_s: float
    cost: float


@dataclass(frozen=True, slots=True)
class Pick:
    """Why a worker was chosen."""

    worker: str
    relaxed: int  # how many soft filters were dropped, 0 to 4
    candidates: int  # that passed all filters, in the group that was drawn from
    considered: tuple[Considered, ...]


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One try at one worker; holds a slot of (worker, revision, model) until `release`.

    `timeout_s`: the lane gives up after this long. `accelerator` is the worker's class.
    `loaded_as`: the model's name in that Triton where it is another (`rename`). `slot` is the
    dispatcher's; None for an inquiry and after the release.
    """

    number: int  # 1 for the first
    pool_uid: str
    worker_id: str
    worker_name: str
    address: str
    http_port: int
    grpc_port: int
    revision: str
    accelerator: str
    model: str
    timeout_s: float
    started_s: float
    pick: Pick
    loaded_as: str = ""
    trial: bool = False  # the first request after the worker was down
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nobody can take the request now: ask again when woken, at the latest at `until_s`."""

    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended, as its lane saw it.

    `latency_s`: first byte sent to last byte received (to the first byte for streams); `detail` is
    a text for people and must hold no content of a request or an answer.
    """

    outcome: Outcome
    latency_s: float
    detail: str = ""


class Step(StrEnum):
    """What to do after an attempt."""

    FORWARD = "forward"  # give the worker's answer to the client
    RETRY = "retry"  # forget the answer, call next_attempt again


Settled = Step | Refusal
