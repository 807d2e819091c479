"""What a notification of a rollout says, how it is signed, and when it is sent again.

A receiver sees an event at least once while the operator lives; the id is the same each time.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from enum import StrEnum

from tidegate_api.meta import ObjectMeta
from tidegate_api.rollout import ModelRolloutStatus
from tidegate_operator.core.instants import rfc3339
from tidegate_operator.core.rollout.model import Note

HEADER_EVENT_ID = "X-Tidegate-Event-Id"
HEADER_SIGNATURE = "X-Tidegate-Signature"
MOST_AGE_S = 600.0  # an event older than this is not sent again
_BACKOFF_S = (1.0, 60.0)
_ID_CHARACTERS = 32
_TRY_AGAIN = frozenset({408, 425, 429})  # refusals that name a moment, not the content


class Delivery(StrEnum):
    """How an attempt, or an event as a whole, ended; also the metric's label."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # the receiver understood it and wants none of it
    FAILED = "failed"  # this attempt; another one may follow
    EXPIRED = "expired"  # every attempt failed until MOST_AGE_S
    DROPPED = "dropped"  # the queue was full


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One event of a rollout. `at_s` is epoch seconds."""

    id: str
    reason: str
    message: str
    namespace: str
    rollout: str
    revision: str  # the canary's, else the one that was given up, else stable's
    at_s: float
    warning: bool


def notification(
    meta: ObjectMeta, status: ModelRolloutStatus, note: Note, at_s: float
) -> Notification:
    """Return what to send of `note`, told with the status that `meta.resource_version` holds.

    The id names the object's version and the words, so that the same transition told twice, by an
    operator that decided it twice, is one event to its receiver.
    """
    seed = json.dumps([meta.uid, meta.resource_version, note.reason.value, note.message])
    return Notification(
        id=hashlib.sha256(seed.encode()).hexdigest()[:_ID_CHARACTERS],
        reason=note.reason.value,
        message=note.message,
        namespace=meta.namespace,
        rollout=meta.name,
        revision=status.canary_revision or status.aborted_revision or status.stable_revision or "",
        at_s=at_s,
        warning=note.warning,
    )


def body_of(event: Notification) -> bytes:
    """Return the JSON that is sent and signed."""
    document = {
        "id": event.id,
        "reason": event.reason,
        "message": event.message,
        "namespace": event.namespace,
        "rollout": event.rollout,
        "revision": event.revision,
        "at": rfc3339(event.at_s),
        "warning": event.warning,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def signature(key: bytes, body: bytes) -> str:
    """Return HEADER_SIGNATURE's value: HMAC-SHA256 (RFC 2104) of the body's bytes, in hex."""
    return f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"


def judge(status: int) -> Delivery:
    """Return what an answer's HTTP status means. A redirect is no delivery: it is not followed."""
    if 200 <= status < 300:
        return Delivery.DELIVERED
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        return Delivery.REFUSED
    return Delivery.FAILED


def next_attempt_s(event: Notification, attempts: int, now_s: float) -> float | None:
    """Return the seconds to wait after `attempts` failed ones; None: it is too old.

    The last attempt is at MOST_AGE_S, however the doubling falls.
    """
    left_s = event.at_s + MOST_AGE_S - now_s
    if left_s <= 0:
        return None
    first_s, most_s = _BACKOFF_S
    return min(most_s, first_s * 2.0 ** min(attempts - 1, 16), left_s)
