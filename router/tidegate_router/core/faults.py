"""Whose fault an attempt's end was, for HTTP and gRPC (router.md section 7).

The texts are Triton's own, checked against each supported version.
"""

import re
from enum import StrEnum

_UNKNOWN_MODEL = ("request for unknown model", "has no available versions")
_MALFORMED = ("failed to parse the request json buffer", "unable to parse '")
_WRAPPING = re.compile(r'\s*\{\s*"error"\s*:\s*"')  # of a message in an HTTP body
HEAD_BYTES = 512  # of a body or message; more is never needed to judge it


class Outcome(StrEnum):
    """How one attempt ended."""

    OK = "ok"
    CLIENT = "client"  # the client's fault: passed on, never retried, no worker blamed
    MODEL_ERROR = "modelError"  # the model failed: passed on, counted against the revision
    NEVER_RAN = "neverRan"  # the worker answered that it did not run this: free retry
    UNREACHABLE = "unreachable"  # no connection, no byte sent: free retry, worker is down
    LOST = "lost"  # the connection broke after bytes were sent
    TIMEOUT = "timeout"  # no complete answer within the attempt's time
    CANCELLED = "cancelled"  # the client left first


NEVER_RAN = frozenset({Outcome.NEVER_RAN, Outcome.UNREACHABLE})
WORKER_FAULTS = frozenset({Outcome.NEVER_RAN, Outcome.UNREACHABLE, Outcome.LOST})
FAILURES = WORKER_FAULTS | {Outcome.TIMEOUT}
WITHOUT_ANSWER = frozenset({Outcome.UNREACHABLE, Outcome.LOST, Outcome.TIMEOUT})

_CLIENT_CODES = frozenset(
    {"INVALID_ARGUMENT", "UNIMPLEMENTED", "OUT_OF_RANGE", "ALREADY_EXISTS", "FAILED_PRECONDITION"}
)


def judge_http(status: int, body_head: bytes = b"") -> Outcome:
    """Judge a worker's HTTP answer by status and the first HEAD_BYTES of its body.

    The router sends only what the table says a worker serves, so a 404 about an unknown model
    is the worker's fault.
    """
    if status < 400:
        return Outcome.OK
    text = body_head[:HEAD_BYTES].decode("utf-8", "replace").lower()
    if status == 503:
        return Outcome.NEVER_RAN
    if any(known in text for known in _UNKNOWN_MODEL) and status in {400, 404}:
        return Outcome.NEVER_RAN
    if status == 501 or status < 500:
        return Outcome.CLIENT
    if _WRAPPING.sub("", text, count=1).startswith(_MALFORMED):
        return Outcome.CLIENT
    return Outcome.MODEL_ERROR


def judge_grpc(code: str, message: str = "") -> Outcome:
    """Judge a worker's gRPC status by the code's name (grpc.StatusCode) and its message.

    UNAVAILABLE here is a status that the worker sent; a broken connection is Outcome.LOST or
    UNREACHABLE and is told apart by the lane.
    """
    text = message[:HEAD_BYTES].lower()
    if code == "OK":
        return Outcome.OK
    if code == "UNAVAILABLE" or any(known in text for known in _UNKNOWN_MODEL):
        return Outcome.NEVER_RAN
    if code in _CLIENT_CODES or code == "NOT_FOUND":
        return Outcome.CLIENT
    if code == "CANCELLED":
        return Outcome.CANCELLED
    if code == "DEADLINE_EXCEEDED":
        return Outcome.TIMEOUT
    if text.startswith(_MALFORMED):
        return Outcome.CLIENT
    return Outcome.MODEL_ERROR
