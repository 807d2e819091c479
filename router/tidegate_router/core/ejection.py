"""Workers that can be reached and yet answer badly, or not at all (router.md section 7).

A model of a worker is ejected after some faults in a row, when it succeeds too rarely while its
peers do not, or when there is work in flight and no byte came for too long. Ejections are capped
per revision and class, and ignored in a panic: when fewer than half of a revision's workers that
are not down are left. After `base_s` one request at a time tries the worker; a good answer brings
it back. The time doubles only for those that came back and fell again, so a worker that heals
serves again within seconds however long it was broken.

One fault makes a worker expensive, so it would hardly be asked again: it is suspect, and the next
requests that can be sent elsewhere are sent to it, one at a time, until one goes well or it is out.
That is not done where a client would pay for it: after errors of the model, and timeouts.
"""

from collections.abc import Iterable

from tidegate_api.routetable import EjectionPolicy
from tidegate_api.verdict import too_many
from tidegate_router.core.candidate import Candidate
from tidegate_router.core.ewma import PeakLatency
from tidegate_router.core.faults import Outcome
from tidegate_router.core.slot import EjectedFor, Slot
from tidegate_router.core.tally import Tally

SILENT_AT_LEAST_S = 0.5
_SILENT_FACTOR = 3
_MIN_ATTEMPTS = 10
_MIN_SUCCESS_RATIO = 0.8
_PEER_FACTOR = 3
_MIN_PEER_ATTEMPTS = 3
_CHANCE = 1e-5  # that the luck of a worker like its peers looks like a fault
_GOOD_WHILE = 4  # times the last ejection: then the next one is a first one
_MAX_DOUBLINGS = 16
_PANIC_RATIO = 0.5
_FREE_TO_TEST = frozenset({Outcome.NEVER_RAN, Outcome.LOST})


def patience_s(p99_s: float | None) -> float | None:
    """Return how long work may be in flight without a byte; None while nothing is known."""
    return None if p99_s is None else max(SILENT_AT_LEAST_S, _SILENT_FACTOR * p99_s)


def note_failure(slot: Slot, outcome: Outcome, now_s: float) -> None:
    """Count a failed attempt of a slot. A model's error proves that the worker itself runs."""
    if not slot.failures_in_row:
        slot.peers_before = slot.peers.ever()
    if not slot.tally.lately(now_s)[1]:
        slot.own_mark, slot.peers_mark = slot.tally.ever(), slot.peers.ever()
    slot.failures_in_row += 1
    slot.faults_in_row = 0 if outcome is Outcome.MODEL_ERROR else slot.faults_in_row + 1
    slot.suspect = outcome in _FREE_TO_TEST
    slot.tally.fail(now_s)
    slot.peers.fail(now_s)


def verdict(slot: Slot, policy: EjectionPolicy, now_s: float) -> EjectedFor | None:
    """Return why a slot that just failed should be ejected, None when it should not.

    Errors of the model count only against a worker that is worse than its peers: a broken model
    is no worker's fault.
    """
    if slot.faults_in_row >= policy.consecutive_failures:
        return EjectedFor.CONSECUTIVE
    if slot.failures_in_row >= policy.consecutive_failures and _unlike_peers(slot):
        return EjectedFor.CONSECUTIVE
    ok, failed = slot.tally.lately(now_s)
    rare = ok < _MIN_SUCCESS_RATIO * (ok + failed)
    if ok + failed >= _MIN_ATTEMPTS and rare and _worse_than_peers(slot):
        return EjectedFor.RATIO
    return None


def _worse_than_peers(slot: Slot) -> bool:
    """Whether peers failed much less often since this one began to fail.

    What came before would count for whoever had more requests when all began to fail.
    """
    own_ok, own_failed = _since(slot.tally, slot.own_mark)
    ok, failed = _since(slot.peers, slot.peers_mark)
    ok, failed = ok - own_ok, max(0, failed - own_failed)
    if ok + failed < _MIN_PEER_ATTEMPTS:
        return False
    own_total, total = own_ok + own_failed, ok + failed
    threefold = own_failed / own_total >= _PEER_FACTOR * failed / total
    return threefold and too_many(own_failed, own_total, (failed + 0.5) / (total + 1), _CHANCE)


def _unlike_peers(slot: Slot) -> bool:
    """Whether peers did well while this one failed in a row, beyond what chance explains."""
    ok, failed = _since(slot.peers, slot.peers_before)
    failed = max(0, failed - slot.failures_in_row)
    if ok + failed < _MIN_PEER_ATTEMPTS:
        return False
    ratio = (failed + 0.5) / (ok + failed + 1)
    return _PEER_FACTOR * ratio <= 1 and ratio**slot.failures_in_row < _CHANCE


def _since(tally: Tally, mark: tuple[int, int]) -> tuple[int, int]:
    ok, failed = tally.ever()
    return ok - mark[0], failed - mark[1]


def has_room(candidate: Candidate, everyone: Iterable[Candidate], policy: EjectionPolicy) -> bool:
    """Whether one more of its class may be ejected: never all, one if there are two."""
    accelerator = candidate.worker.accelerator
    reachable = [
        one for one in everyone if one.worker.accelerator == accelerator and not one.health.down
    ]
    count, ejected = len(reachable), sum(one.slot.ejected for one in reachable)
    if policy.max_ejected_percent == 0:
        return False
    most = min(count - 1, max(1, count * policy.max_ejected_percent // 100))
    return ejected < most


def eject(slot: Slot, reason: EjectedFor, policy: EjectionPolicy, now_s: float) -> None:
    """Take a slot out."""
    state = slot.ejection
    if now_s - state.returned_s > _GOOD_WHILE * state.duration_s:
        state.times = 0
    doubled_s = policy.base_s * 2.0 ** min(state.times, _MAX_DOUBLINGS)
    state.duration_s = min(policy.max_s, doubled_s)
    state.reason, state.since_s, state.trial = reason, now_s, False
    state.trial_s = now_s + state.duration_s
    state.times += 1
    slot.ejected = slot.shunned = True
    slot.suspect = False


def restore(slot: Slot, now_s: float) -> None:
    """Take a slot in again."""
    slot.ejected = slot.shunned = False
    slot.ejection.returned_s = now_s
    clear(slot, now_s)
    slot.tally = Tally()


def clear(slot: Slot, now_s: float) -> None:
    """Forget what a slot's bad time says about it: it is as one that was never asked."""
    slot.suspect = slot.ejection.trial = False
    slot.failures_in_row = slot.faults_in_row = 0
    slot.latency = PeakLatency()
    slot.valid_s = now_s


def trial_ended(slot: Slot, outcome: Outcome, now_s: float) -> None:
    """Judge what tried an ejected slot: back, or out again for as long as before.

    What says nothing about the worker lets the next request try it.
    """
    state = slot.ejection
    state.trial = False
    if outcome is Outcome.OK:
        restore(slot, now_s)
    elif outcome not in {Outcome.CLIENT, Outcome.CANCELLED}:
        state.trial_s = now_s + state.duration_s


def due(candidate: Candidate, now_s: float, pause_s: float = 0.0) -> bool:
    """Whether one request may try a worker that is down, ejected, or slow (once in `pause_s`).

    One that is silent is not tried while it has work: its first byte brings it back.
    """
    slot, health = candidate.slot, candidate.health
    if health.down:
        return health.usable(now_s)
    state = slot.ejection
    if state.trial:
        return False
    if not slot.ejected:
        rested = slot.slow and not slot.in_flight and now_s >= slot.tried_s + pause_s
        return slot.suspect or rested
    if now_s < state.trial_s:
        return False
    return state.reason is not EjectedFor.SILENT or slot.in_flight <= slot.streams


def silent(slot: Slot, allowed_s: float | None, now_s: float) -> bool:
    """Whether a slot has work in flight and gave no sign of life for longer than `allowed_s`."""
    return (
        allowed_s is not None
        and slot.in_flight > slot.streams
        and not slot.ejected
        and now_s - slot.heard_s > allowed_s
    )


def in_panic(everyone: Iterable[Candidate]) -> bool:
    """Whether so few workers are left that ejections are ignored."""
    reachable = [one for one in everyone if not one.health.down]
    left = sum(not one.slot.ejected for one in reachable)
    return left < _PANIC_RATIO * len(reachable)
