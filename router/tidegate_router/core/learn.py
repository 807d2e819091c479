"""What a router learns from an attempt's end, and from silence: latency, down, ejections."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tidegate_router.core import ejection, slow
from tidegate_router.core.candidate import Candidate
from tidegate_router.core.faults import FAILURES, Outcome
from tidegate_router.core.pools import Group, PoolView
from tidegate_router.core.request import Attempt
from tidegate_router.core.slot import EjectedFor

_ANSWERS = frozenset({Outcome.OK, Outcome.CLIENT, Outcome.MODEL_ERROR, Outcome.NEVER_RAN})
_BLAMED = FAILURES | {Outcome.MODEL_ERROR}
Counted = tuple[str, str, str, str]  # namespace, pool, revision, reason


@dataclass(slots=True)
class HealthKeeper:
    """Decides on ejections, and counts them since the process started."""

    ejections: dict[Counted, int] = field(default_factory=dict)

    def learn(
        self,
        view: PoolView | None,
        attempt: Attempt,
        outcome: Outcome,
        spent_s: float,
        now_s: float,
    ) -> None:
        """Take the end of an attempt that counts, whatever it was; `view` None: its pool is gone.

        `spent_s`: what the attempt took.
        """
        candidate = attempt.choice.candidate
        slot = candidate.slot
        was_down = candidate.health.down
        reach(attempt, outcome, now_s)
        if outcome in _ANSWERS:
            slot.heard_s = now_s
        if slot.slow and outcome is Outcome.OK and view is not None:
            usual_s = view.group(attempt.revision, attempt.model).usual_s
            slow.note(slot, spent_s, usual_s.get(candidate.worker.accelerator))
        if slot.ejected:
            self._while_ejected(attempt, outcome, now_s)
        elif attempt.trial:
            slot.ejection.trial = False
        if outcome is Outcome.OK:
            _went_well(attempt, spent_s, now_s, was_down=was_down)
        if view is None:
            return
        group = view.group(attempt.revision, attempt.model)
        if outcome in _BLAMED and attempt.started_s >= slot.valid_s:
            slot.latency.record_failure(group.p95_s, now_s)
            self._blame(view, group, attempt, outcome, spent_s, now_s)
        if attempt.trial or was_down != candidate.health.down:
            group.survey(now_s)

    def _while_ejected(self, attempt: Attempt, outcome: Outcome, now_s: float) -> None:
        slot = attempt.choice.candidate.slot
        if slot.ejection.reason is EjectedFor.SILENT and outcome in _ANSWERS:
            ejection.restore(slot, now_s)
        elif attempt.trial:
            ejection.trial_ended(slot, outcome, now_s)

    def _blame(
        self,
        view: PoolView,
        group: Group,
        attempt: Attempt,
        outcome: Outcome,
        spent_s: float,
        now_s: float,
    ) -> None:
        """Count a failure; eject for it if it is one too many."""
        candidate = attempt.choice.candidate
        slot = candidate.slot
        if outcome is Outcome.UNREACHABLE:
            return  # that is down, not ejected
        if outcome is Outcome.TIMEOUT and spent_s < _patience_s(group, candidate):
            return  # its client had less time than the model needs
        ejection.note_failure(slot, outcome, now_s)
        if slot.faults_in_row >= view.ejection.consecutive_failures:
            slot.suspect = False  # it is clear enough
        if not slot.ejected and (reason := ejection.verdict(slot, view.ejection, now_s)):
            self._eject(view, group, candidate, reason, now_s)
        elif slot.suspect:
            group.survey(now_s)

    def _eject(
        self, view: PoolView, group: Group, candidate: Candidate, reason: EjectedFor, now_s: float
    ) -> None:
        if not ejection.has_room(candidate, group.candidates, view.ejection):
            return
        ejection.eject(candidate.slot, reason, view.ejection, now_s)
        pool = view.table.pool
        counted = (pool.namespace, pool.name, group.key[0], reason.value)
        self.ejections[counted] = self.ejections.get(counted, 0) + 1
        group.survey(now_s)

    def survey(self, view: PoolView, now_s: float) -> None:
        """Eject who is silent, and see who is due for a trial; a few times a second."""
        for group in view.groups.values():
            for candidate in group.silent(now_s):
                self._eject(view, group, candidate, EjectedFor.SILENT, now_s)
            group.survey(now_s)


def _went_well(attempt: Attempt, spent_s: float, now_s: float, *, was_down: bool) -> None:
    """Count a good answer; the first after a bad time clears the slot."""
    slot = attempt.choice.candidate.slot
    if was_down or slot.failures_in_row:
        forgiven = was_down or slot.suspect
        slot.suspect = False
        slot.failures_in_row = slot.faults_in_row = 0
        if forgiven:
            ejection.clear(slot, attempt.started_s)
    if attempt.started_s >= slot.valid_s:
        slot.latency.record(spent_s, now_s)
    slot.tally.good(now_s)
    slot.peers.good(now_s)


def reach(attempt: Attempt, outcome: Outcome, now_s: float) -> None:
    """Note whether the worker could be reached."""
    health = attempt.choice.candidate.health
    if outcome is Outcome.UNREACHABLE:
        health.unreachable(now_s)
    elif outcome is Outcome.LOST:
        health.lost(now_s)
    elif outcome in {Outcome.TIMEOUT, Outcome.CANCELLED}:
        if attempt.trial:
            health.ended_otherwise()
    else:
        health.answered()


def heard(candidate: Candidate, now_s: float) -> None:
    """A byte came: silence is over."""
    slot = candidate.slot
    slot.heard_s = now_s
    if slot.ejected and slot.ejection.reason is EjectedFor.SILENT:
        ejection.restore(slot, now_s)


def ejected(view: PoolView) -> Iterator[tuple[Group, Candidate]]:
    """Return who is ejected now."""
    for group in view.groups.values():
        for candidate in group.candidates:
            if candidate.slot.ejected:
                yield group, candidate


def _patience_s(group: Group, candidate: Candidate) -> float:
    known_s = group.patience_s.get(candidate.worker.accelerator)
    return ejection.SILENT_AT_LEAST_S if known_s is None else known_s
