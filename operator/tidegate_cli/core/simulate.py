"""A rollout's steps and analysis on a metric trace: the operator's own state machine and judge.

One pool with one model and one class; a tick of one second, as the operator's. Revisions are
`stable` and `canary`. What is simulated is the traffic, the workers' start and the routers'
acknowledgement; what is decided is not.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tidegate_api import histogram as tg1
from tidegate_api.names import ANNOTATION_PROMOTE, RolloutReason
from tidegate_api.rollout import ModelRollout
from tidegate_api.routerstate import Attempts, RouterState, SeriesState, ShadowState
from tidegate_cli.core.documents import span
from tidegate_cli.core.trace import Moment, Quality, latency_shares, moment_at
from tidegate_operator.core.observation import QueryResult, RouterMember
from tidegate_operator.core.rollout.analysis import AnalysisContext, assess
from tidegate_operator.core.rollout.machine import advance
from tidegate_operator.core.rollout.model import (
    Outcome,
    Policy,
    Progress,
    Sight,
    State,
    Track,
)
from tidegate_operator.core.rollout.policy import resolve
from tidegate_operator.core.rollout.view import MOVING, View
from tidegate_operator.core.rollout.windows import AnalysisMemory

_STABLE, _CANARY, _CLASS, _MODEL, _POOL = "stable", "canary", "any", "model", "pool"
_TICK_S = 1.0
_ACKNOWLEDGE_S = 1.0


class Verdict(StrEnum):
    """How a simulation ends."""

    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    WAITING = "WaitingForPromote"
    STALLED = "Stalled"
    UNFINISHED = "Unfinished"


EXIT_CODES = {
    Verdict.PROMOTED: 0,
    Verdict.ROLLED_BACK: 1,
    Verdict.STALLED: 1,
    Verdict.WAITING: 3,
    Verdict.UNFINISHED: 3,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """`begun_s`: instant of the edit, in epoch seconds, far from 0. `start_s`: from a worker's
    creation to Ready. `promote`: at pauses without duration.
    """

    begun_s: float
    workers: int = 4
    start_s: float = 30.0
    promote: bool = False
    most_s: float = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, `at_s` seconds after the edit."""

    at_s: float
    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """The last thing that happened."""

    at_s: float
    verdict: Verdict
    message: str

    def __str__(self) -> str:
        return f"{self.verdict} after {span(self.at_s)}: {self.message}"


@dataclass(slots=True)
class _Counter:
    """What the routers counted of one revision; fractions are kept, whole numbers are shown."""

    total: float = 0.0
    failed: float = 0.0
    client: float = 0.0
    latency: dict[int, float] = field(default_factory=dict)
    whole: dict[int, int] = field(default_factory=dict)  # of latency

    def add(self, attempts: float, quality: Quality) -> None:
        self.total += attempts
        self.failed += attempts * quality.errors
        self.client += attempts * quality.client_errors
        for bucket, share in latency_shares(quality.p95_s):
            self.latency[bucket] = self.latency.get(bucket, 0.0) + attempts * share
        self._round()

    def _round(self) -> None:
        """What a bucket lacks of a whole goes to the next: few attempts are counted as well."""
        carried = 0.0
        for bucket in sorted(self.latency):
            wanted = self.latency[bucket] - self.whole.get(bucket, 0) + carried
            added = max(0, math.floor(wanted))
            self.whole[bucket] = self.whole.get(bucket, 0) + added
            carried = wanted - added

    def shown(self, revision: str) -> SeriesState:
        failed, client = math.floor(self.failed), math.floor(self.client)
        ok = max(0, math.floor(self.total) - failed - client)
        return SeriesState(
            namespace="",
            pool=_POOL,
            uid=_POOL,
            revision=revision,
            model=_MODEL,
            accelerator=_CLASS,
            attempts=Attempts(ok=ok, client=client, model_error=failed),
            attempt_latency=[(bucket, count) for bucket, count in self.whole.items() if count],
        )


@dataclass(slots=True)
class _World:
    """The traffic, the workers and the routers of the simulated pool."""

    rollout: ModelRollout
    setup: Setup
    moments: Sequence[Moment]
    counters: dict[str, _Counter] = field(
        default_factory=lambda: {_STABLE: _Counter(), _CANARY: _Counter()}
    )
    compared: float = 0.0
    disagreed: float = 0.0
    started_s: list[float] = field(default_factory=list)  # of each canary worker
    published: Mapping[str, int] = field(default_factory=lambda: {_STABLE: 100})
    published_s: float = -math.inf

    def live(self, at_s: float) -> None:
        """Let a tick's requests arrive."""
        now = moment_at(self.moments, at_s)
        for revision, quality in ((_STABLE, now.stable), (_CANARY, now.canary)):
            share = self.published.get(revision, 0) / 100
            self.counters[revision].add(now.rate * share * _TICK_S, quality)
        mirror = self.rollout.spec.mirror
        if mirror is not None and self.ready(at_s):
            copies = now.rate * self.published.get(_STABLE, 0) / 100 * mirror.percent / 100
            self.compared += copies * _TICK_S
            self.disagreed += copies * _TICK_S * now.canary.disagreement

    def ready(self, at_s: float) -> int:
        """Return the canary's Ready workers."""
        canary = moment_at(self.moments, at_s).canary
        if not canary.ready or canary.failure:
            return 0
        return sum(at_s - began_s >= self.setup.start_s for began_s in self.started_s)

    def obey(self, outcome: Outcome, at_s: float) -> None:
        """Publish weights and start or stop workers."""
        wanted = outcome.scale.get(_CANARY, {}).get(_CLASS, 0)
        self.started_s = [*self.started_s[:wanted]]
        self.started_s += [at_s] * (wanted - len(self.started_s))
        weights = {name: weight for name, weight in outcome.weights.items() if weight}
        if weights != self.published:
            self.published, self.published_s = weights, at_s

    def router(self, at_s: float) -> RouterMember:
        """Return the one router with all that it counted."""
        shadow = ShadowState(
            namespace="",
            pool=_POOL,
            uid=_POOL,
            revision=_CANARY,
            model=_MODEL,
            compared=math.floor(self.compared),
            disagreed=math.floor(self.disagreed),
        )
        state = RouterState(
            instance="router",
            synced=True,
            histogram_scheme=tg1.SCHEME,
            series=[counter.shown(name) for name, counter in self.counters.items()],
            shadows=[shadow],
        )
        return RouterMember(
            name="router", address="", scraped_s=self.setup.begun_s + at_s, state=state
        )

    def sight(self, at_s: float, progress: Progress) -> Sight:
        """Return what the operator would see."""
        canary = moment_at(self.moments, at_s).canary
        counts = {_CLASS: self.setup.workers}
        track = Track(
            ready={_CLASS: self.ready(at_s)},
            replicas={_CLASS: len(self.started_s)},
            failure=canary.failure if self.started_s else "",
            failing_since_s=self._failing_since_s(canary),
        )
        gated = progress.state is State.PAUSED and progress.reason is RolloutReason.PAUSED_BY_STEP
        promote = {ANNOTATION_PROMOTE: f"{_CANARY}/{progress.step_index}@{at_s:g}"}
        return Sight(
            now_s=self.setup.begun_s + at_s,
            asked=_CANARY,
            counts=counts,
            tracks={_STABLE: Track(ready=counts, replicas=counts), _CANARY: track},
            kept=(_STABLE, _CANARY),
            was_stable=_STABLE,
            published=self.published,
            settled=at_s - self.published_s >= _ACKNOWLEDGE_S,
            verbs=promote if gated and self.setup.promote else {},
            paused=self.rollout.spec.paused,
        )

    def _failing_since_s(self, canary: Quality) -> float | None:
        if not canary.failure or not self.started_s:
            return None
        since_s = next(
            moment.at_s for moment in self.moments if moment.canary.failure == canary.failure
        )
        return self.setup.begun_s + max(since_s, self.started_s[0] + self.setup.start_s)


def simulate(
    rollout: ModelRollout, moments: Sequence[Moment], setup: Setup
) -> Iterator[Event | End]:
    """Yield what happens after the edit, and the end."""
    policy = resolve(rollout.spec)
    world = _World(rollout, setup, moments)
    progress = Progress(state=State.HEALTHY, stable=_STABLE, asked=_STABLE, since_s=setup.begun_s)
    memory, at_s = AnalysisMemory(), 0.0
    while at_s <= setup.most_s:
        world.live(at_s)
        sight, memory = _judged(policy, world, progress, memory, at_s)
        outcome = advance(policy, sight, progress)
        yield from _events(progress, outcome, at_s)
        world.obey(outcome, at_s)
        progress = outcome.progress
        if (verdict := _verdict(outcome, setup)) is not None:
            yield End(at_s, verdict, progress.message)
            return
        at_s += _TICK_S
    yield End(at_s, Verdict.UNFINISHED, progress.message)


def _judged(
    policy: Policy, world: _World, progress: Progress, memory: AnalysisMemory, at_s: float
) -> tuple[Sight, AnalysisMemory]:
    """Return the sight with analysis' assessment, as the operator's tick does."""
    sight = world.sight(at_s, progress)
    if policy.analysis is None:
        return sight, memory
    view = View(policy=policy, sight=sight, progress=progress)
    values = moment_at(world.moments, at_s).prometheus
    tried = progress.state in MOVING and progress.canary == sight.asked
    context = AnalysisContext(
        now_s=sight.now_s,
        pool_uid=_POOL,
        stable=progress.stable,
        canary=progress.canary if tried else None,
        step_index=progress.step_index,
        step_since_s=progress.step_since_s,
        goal=view.goal,
        verified=progress.verified,
        routers=(world.router(at_s),),
        queries={
            check.query: QueryResult(at_s=sight.now_s, value=values.get(check.name))
            for check in policy.analysis.prometheus
        },
    )
    assessment, memory = assess(policy.analysis, context, memory)
    return replace(sight, assessment=assessment), memory


def _events(before: Progress, outcome: Outcome, at_s: float) -> Iterator[Event]:
    for note in outcome.notes:
        yield Event(at_s, f"{note.reason}: {note.message}", note.warning)
    after = outcome.progress
    if (after.state, after.reason) != (before.state, before.reason):
        yield Event(at_s, f"{after.state} ({after.reason}): {after.message}")


def _verdict(outcome: Outcome, setup: Setup) -> Verdict | None:
    progress = outcome.progress
    if progress.state is State.ABORTED:
        return Verdict.ROLLED_BACK
    if progress.state is State.HEALTHY and progress.stable == _CANARY:
        return Verdict.PROMOTED
    if progress.state is State.PAUSED:
        by_step = progress.reason is RolloutReason.PAUSED_BY_STEP
        return None if by_step and setup.promote else Verdict.WAITING
    return Verdict.STALLED if outcome.deadline_exceeded else None
