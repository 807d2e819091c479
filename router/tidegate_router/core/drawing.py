"""The revision of a request, where it is no plain ticket: versions, pins, inquiries, sequences."""

from dataclasses import dataclass

from tidegate_api.names import DroppedReason, FailureMode
from tidegate_router.core import choosing, lookup, refusals
from tidegate_router.core.canary import pick_by_weight
from tidegate_router.core.pick import Uniform
from tidegate_router.core.pins import pinned_revisions
from tidegate_router.core.pools import Group, PoolView
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Call
from tidegate_router.core.sequences import SequenceBook, by_weight


@dataclass(frozen=True, slots=True)
class Drawn:
    """A revision, None when none has weight; `pinned` requests are left out of analysis."""

    revision: str | None
    pinned: bool = False


def draw(
    ask: Ask, view: PoolView, book: SequenceBook, uniform: Uniform, now_s: float
) -> Drawn | Refusal:
    """Return the revision. Only what analysis counts spends a ticket."""
    servable = view.servable(ask.model, ask.version)
    if ask.version and not servable and view.servable(ask.model, ""):
        text = f"model '{ask.model}' has no version {ask.version}"
        return Refusal(DroppedReason.UNKNOWN_MODEL, text)
    if pin := _pin(ask, view, now_s):
        return Drawn(pin, pinned=True)
    weights = view.revision_weights
    if ask.call is Call.INQUIRY or ask.version:
        found = pick_by_weight(weights, servable, uniform)
        found = found or pick_by_weight(weights, weights, uniform)
        return Drawn(found, pinned=bool(ask.version))
    if ask.sequence and any(view.group(name, ask.model).sequence for name in servable):
        return Drawn(_of_sequence(ask, view, servable, book, now_s))
    return Drawn(view.draw.draw(weights, servable, uniform))


def _pin(ask: Ask, view: PoolView, now_s: float) -> str | None:
    """Return the revision that the request's headers ask for, if a worker of it is usable."""
    for revision in pinned_revisions(view.table.pins, ask.given):
        if choosing.anyone(view.group(revision, ask.model).ready, ask.version, now_s):
            return revision
    return None


def _of_sequence(
    ask: Ask, view: PoolView, servable: list[str], book: SequenceBook, now_s: float
) -> str | None:
    """Return where a sequence lives, else its revision by rendezvous hashing."""
    place = book.place((view.table.pool.uid, ask.model, ask.sequence), now_s)
    if place is not None and place.revision in servable:
        return place.revision
    weights = view.revision_weights
    usable = {
        name: weights.get(name, 0)
        for name in servable
        if choosing.anyone(view.group(name, ask.model).ready, "", now_s)
    }
    return by_weight(usable, ask.sequence) or by_weight(weights, ask.sequence)


def refused(ask: Ask, view: PoolView, group: Group) -> Refusal | None:
    """Refuse a call that its model does not have, or a blind choice that the pool forbids."""
    closed = view.table.policy.failure_mode is FailureMode.FAIL_CLOSED
    if closed and group.worthless and ask.call is not Call.INQUIRY:
        return refusals.scores_stale(lookup.full_name(view.table.pool))
    return refusals.wrong_call(ask, group)
