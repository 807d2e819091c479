"""What an answer counts as. One table for HTTP statuses and one for gRPC codes.

Refused is only what a router refused itself and said so (x-tidegate-dropped-reason). A client's
fault and a refusal count as lost too unless the run says that they were meant: bad requests were
sent on purpose, or more was offered than the workers can do.
"""

from collections.abc import Mapping
from enum import StrEnum

_REFUSALS = frozenset({429, 503})
_CLIENT_CODES = frozenset({
    "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED",
    "FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED",
})  # fmt: skip
_REFUSAL_CODES = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"})


class Outcome(StrEnum):
    """What came of one request."""

    OK = "ok"
    CLIENT = "client"  # the request was at fault, as the answer says
    REFUSED = "refused"  # by the router itself, with a reason
    ERROR = "error"  # any other answer
    WRONG = "wrong"  # a good status, but not the answer that this request had before
    TIMEOUT = "timeout"
    RESET = "reset"  # the connection broke before the whole answer was there
    CONNECT = "connect"  # no connection came about


_ALWAYS_LOST = frozenset({
    Outcome.ERROR, Outcome.WRONG, Outcome.TIMEOUT, Outcome.RESET, Outcome.CONNECT,
})  # fmt: skip


def of_status(status: int, reason: str) -> Outcome:
    """Judge an HTTP answer; `reason` is the value of x-tidegate-dropped-reason, or empty."""
    if 200 <= status < 300:
        return Outcome.OK
    if reason and status in _REFUSALS:
        return Outcome.REFUSED
    return Outcome.CLIENT if 400 <= status < 500 and status != 429 else Outcome.ERROR


def of_code(code: str, reason: str) -> Outcome:
    """Judge a gRPC answer by the name of its code."""
    if code == "OK":
        return Outcome.OK
    if reason and code in _REFUSAL_CODES:
        return Outcome.REFUSED
    if code == "DEADLINE_EXCEEDED":
        return Outcome.TIMEOUT
    return Outcome.CLIENT if code in _CLIENT_CODES else Outcome.ERROR


def lost(counts: Mapping[Outcome, int], *, client_meant: bool, refused_meant: bool) -> int:
    """Return how many requests count as lost.

    `client_meant`: requests at fault were sent on purpose. `refused_meant`: the offered load
    exceeds what the workers can do.
    """
    counted = set(_ALWAYS_LOST)
    counted |= set() if client_meant else {Outcome.CLIENT}
    counted |= set() if refused_meant else {Outcome.REFUSED}
    return sum(counts.get(outcome, 0) for outcome in counted)
