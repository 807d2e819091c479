"""One line per request for people who look for a request, and the W3C trace it belongs to.

https://www.w3.org/TR/trace-context/ and https://www.w3.org/TR/server-timing/
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from tidegate_router.core.request import Route

CRC_RANGE = 2**32
_TRACE = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"  # version to flags, more
)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 0x01
_RANDOM = 0x02  # trace-context level 2: the id's last 7 bytes are random


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A finished request. Times are of the client's view, in milliseconds.

    `queue_ms`: until the first worker was chosen. `upstream_ms`: all attempts together, each from
    its first byte sent to the last received (of a stream: the first). `outcome`: how the last
    attempt ended; `refused` where none did. `reason`: x-tidegate-dropped-reason's value.
    """

    id: str
    protocol: str
    status: str  # HTTP's number or gRPC's name
    outcome: str
    reason: str = ""
    pool: str = ""  # namespace/name
    model: str = ""
    tier: str = ""
    revision: str = ""
    worker: str = ""
    attempts: int = 0
    queue_ms: float = 0.0
    upstream_ms: float = 0.0
    total_ms: float = 0.0
    trace: str = ""  # 32 hex digits

    def line(self, stamp: str) -> bytes:
        """Return the line; `stamp` is RFC 3339. Nothing of a body or a credential is in it."""
        words = {
            "ts": stamp,
            "level": "info",
            "msg": "request",
            "id": self.id,
            "protocol": self.protocol,
            "status": self.status,
            "outcome": self.outcome,
            "reason": self.reason,
            "pool": self.pool,
            "model": self.model,
            "tier": self.tier,
            "revision": self.revision,
            "worker": self.worker,
            "attempts": self.attempts,
            "queue_ms": round(self.queue_ms, 3),
            "upstream_ms": round(self.upstream_ms, 3),
            "total_ms": round(self.total_ms, 3),
            "trace": self.trace,
        }
        kept = {key: value for key, value in words.items() if value != ""}
        return json.dumps(kept, separators=(",", ":")).encode() + b"\n"


def of_route(
    identity: str,
    route: Route,
    status: str,
    now_s: float,
    *,
    protocol: str,
    reason: str = "",
    trace: str = "",
) -> Record:
    """Return the record of a request that was planned."""
    outcome, total_s = route.last_outcome, now_s - route.started_s
    return Record(
        id=identity,
        protocol=protocol,
        status=status,
        outcome="refused" if outcome is None else outcome.value,
        reason=reason,
        pool=f"{route.namespace}/{route.pool}",
        model=route.ask.model,
        tier=route.tier,
        revision=route.revision,
        worker=route.worker,
        attempts=route.attempts,
        queue_ms=(route.queue_s if route.attempts else total_s) * 1e3,
        upstream_ms=route.upstream_s * 1e3,
        total_ms=total_s * 1e3,
        trace=trace,
    )


def sampled(identity: str, ratio: float) -> bool:
    """Whether a success leaves a record: `ratio` (0..1) of the ids do.

    The id's CRC-32 decides, so two routers that see one id decide alike.
    """
    return crc32(identity.encode("latin-1", "replace")) < ratio * CRC_RANGE


def server_timing(queue_s: float, upstream_s: float, total_s: float) -> str:
    """Return the value of Server-Timing; `router` is the rest of the time, its own work."""
    own_s = max(0.0, total_s - queue_s - upstream_s)
    return (
        f"queue;dur={queue_s * 1e3:.2f}, upstream;dur={upstream_s * 1e3:.2f}, "
        f"router;dur={own_s * 1e3:.2f}"
    )


class Trace(NamedTuple):
    """Where a request belongs: what workers are told, and whether somebody collects it.

    `header` is the traceparent for a worker. `given`: the client sent a valid one, so its
    tracestate is passed on too. `sampled`: the caller records this request, and so do we.
    """

    trace: str
    header: str
    sampled: bool
    given: bool


def trace_of(values: Sequence[str], bits: Callable[[int], int], *, sampled: bool = False) -> Trace:
    """Return the trace of a request whose traceparent headers are `values`.

    A valid one goes on with a new span; an invalid, double or absent one is replaced by a new trace
    whose flag is `sampled`. `bits(n)` returns n random bits. Runs once per request: 1 to 2 us.
    """
    found = _TRACE.fullmatch(values[0]) if len(values) == 1 else None
    if found is not None:
        version, trace, parent, flags, more = found.groups()
        # Version ff is none, version 00 has four parts, ids of zeros are none.
        wrong = version == "ff" or (more and version == "00")
        if not wrong and trace != _NO_TRACE and parent != _NO_SPAN:
            kept = int(flags, 16) & (_SAMPLED | _RANDOM)
            header = f"00-{trace}-{bits(64) or 1:016x}-{kept:02x}"
            return Trace(trace, header, bool(kept & _SAMPLED), given=True)
    fresh = f"{bits(128) or 1:032x}"
    flag = "03" if sampled else "02"
    return Trace(fresh, f"00-{fresh}-{bits(64) or 1:016x}-{flag}", sampled, given=False)
