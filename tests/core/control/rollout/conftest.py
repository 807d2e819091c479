"""A small world around the state machine: workers, routers, writes that may be lost."""

import pytest

from tidegate_api.meta import ObjectMeta
from tidegate_operator.core.observation import ObservedRollout
from tidegate_operator.core.rollout.kstatus import rollout_status
from tidegate_operator.core.rollout.machine import advance
from tidegate_operator.core.rollout.model import (
    AnalysisPlan,
    Assessment,
    Policy,
    Sight,
    State,
    StepPlan,
    Track,
)
from tidegate_operator.core.rollout.persist import progress_of, status_of
from tidegate_operator.core.rollout.view import RISING

STEPS = (
    StepPlan(weight=5),
    StepPlan(pause_s=10.0),
    StepPlan(weight=50),
    StepPlan(),
)
NO_WRITE_IS_LOST = 9


class World:
    """One rollout with instant workers and routers unless told otherwise."""

    def __init__(self, policy=None, counts=None, stable="r1"):
        self.now_s = 1_700_000_000.0
        self.policy = policy or Policy(steps=STEPS, step_hash="h1")
        self.counts = dict(counts or {"a10g": 4})
        self.asked = stable
        self.kept = [stable] if stable else []
        self.was_stable = stable
        self.marked = set()
        self.published = {}
        self.acknowledged = {}
        self.routers_answer = True
        self.verbs = {}
        self.paused = False
        self.local_aborts = {}
        self.obstacle = "image"
        self.no_room = False  # a second revision finds no accelerator
        self.broken = set()  # revisions whose workers never become Ready
        self.failing = {}  # revision -> since when its failure holds
        self.slow = False  # workers become Ready only by `bring_up`
        self.replicas = {}
        self.ready = {}
        self.status = status_of({})
        self.assessment = Assessment()
        self.notes = []
        self.outcome = None
        if stable:
            self.replicas[stable] = dict(self.counts)
            self.ready[stable] = dict(self.counts)
            self.published = self.acknowledged = {stable: 100}

    @property
    def progress(self):
        return progress_of(self.status)

    @property
    def state(self):
        return self.progress.state

    def edit(self, revision):
        self.asked = revision
        if revision not in self.kept:
            self.kept.append(revision)

    def verb(self, name, value):
        self.verbs[f"tidegate.dev/{name}"] = value

    def settled(self):
        return self.acknowledged == self.published

    def look(self):
        return Sight(
            now_s=self.now_s,
            asked=self.asked,
            counts=dict(self.counts),
            tracks={name: self._track(name) for name in self.replicas},
            kept=tuple(self.kept),
            was_stable=self.was_stable,
            marked_aborted=frozenset(self.marked),
            published=dict(self.published),
            settled=self.settled(),
            verbs=dict(self.verbs),
            paused=self.paused,
            assessment=self.assessment,
            local_aborts=dict(self.local_aborts),
            in_place_obstacle=self.obstacle,
        )

    def _track(self, name):
        since_s = self.failing.get(name)
        return Track(
            ready=dict(self.ready.get(name, {})),
            replicas=dict(self.replicas[name]),
            failure="ModelLoadFailed: broken" if since_s is not None else "",
            failing_since_s=since_s,
            unschedulable="0/3 nodes have nvidia.com/gpu" if self._lacks_room(name) else "",
        )

    def _lacks_room(self, name):
        wanted, there = sum(self.replicas[name].values()), sum(self.ready[name].values())
        return self.no_room and name != self.was_stable and there < wanted

    def decide(self):
        """One decision, without writing it."""
        sight = self.look()
        return sight, advance(self.policy, sight, self.progress)

    def tick(self, seconds=1.0, *, table_first=False, writes=NO_WRITE_IS_LOST):
        """One decision and its writes; all after the first `writes` are lost (kill -9)."""
        self.now_s += seconds
        sight, outcome = self.decide()
        self.outcome = outcome
        self.notes = list(outcome.notes)
        rest = [self._write_table, self._write_status]
        ordered = [self._mark, *(rest if table_first else rest[::-1]), self._unmark, self._scale]
        for write in ordered[:writes]:
            write(sight, outcome)
        self.assessment = Assessment()
        self.live()
        return outcome

    def _mark(self, _sight, outcome):
        if outcome.mark_aborted:
            self.marked.add(outcome.mark_aborted)

    def _unmark(self, _sight, outcome):
        self.marked.discard(outcome.unmark_aborted)

    def _write_status(self, sight, outcome):
        meta = ObjectMeta(name="vision", generation=1)
        bound = ObservedRollout(meta=meta, rollout=None, status=self.status)
        status = rollout_status(self.policy, sight, outcome, bound, self.now_s)
        self.status = status_of(status.to_wire())
        if outcome.progress.state in {State.HEALTHY, State.SCALING_DOWN, State.PINNED}:
            self.was_stable = outcome.progress.stable

    def _write_table(self, _sight, outcome):
        self.published = dict(outcome.weights)

    def _scale(self, _sight, outcome):
        for name, counts in outcome.scale.items():
            self.replicas[name] = dict(counts)
            self.ready.setdefault(name, {})
        for name in set(self.replicas) - set(outcome.scale):
            if self.settled() and name not in self.published:
                self.replicas.pop(name)
                self.ready.pop(name)

    def live(self):
        """Routers acknowledge, workers start and end."""
        if self.routers_answer:
            self.acknowledged = dict(self.published)
        for name, counts in self.replicas.items():
            ready = self.ready[name]
            self.ready[name] = {key: min(ready.get(key, 0), n) for key, n in counts.items()}
            if not self.slow:
                self.bring_up(name)

        self._load_in_place()

    def _load_in_place(self):
        """A canary in stable's workers is Ready where they are."""
        progress = self.progress
        if progress.strategy != "InPlace" or progress.canary is None or self.slow:
            return
        if progress.state in RISING and progress.canary not in self.broken:
            self.replicas.setdefault(progress.canary, {})
            self.ready[progress.canary] = dict(self.ready.get(progress.stable, {}))

    def bring_up(self, name):
        stuck = name in self.broken or (self.no_room and name != self.was_stable)
        if name in self.replicas and not stuck:
            self.ready[name] = dict(self.replicas[name])

    def lose(self, name, count=99):
        """So many Ready workers of each class are gone."""
        present = self.ready.get(name, {})
        self.ready[name] = {key: max(0, n - count) for key, n in present.items()}

    def until(self, *states, limit=400):
        """Tick each second until one of these states; what is reached is returned."""
        for _ in range(limit):
            if self.state in states:
                return self.state
            self.tick()
        raise AssertionError(f"still {self.state} after {limit} s: {self.progress.message}")

    def say(self, **assessment):
        """What analysis says in the next decision."""
        self.assessment = Assessment(judged=True, **assessment)


@pytest.fixture
def make_world():
    """World with the policy's fields: make_world(surge="InPlace", analysis={...})."""

    def make(*, counts=None, stable="r1", analysis=None, **fields):
        plan = None if analysis is None else AnalysisPlan(**analysis)
        policy = Policy(**{"steps": STEPS, "step_hash": "h1", "analysis": plan} | fields)
        return World(policy, counts, stable)

    return make


@pytest.fixture
def canary(make_world):
    """A world whose canary r2 has reached `state` with weight 5."""

    def make(state=State.HOLDING, **fields):
        world = make_world(**fields)
        world.tick()
        world.edit("r2")
        world.until(state)
        return world

    return make


@pytest.fixture
def kinds():
    return lambda outcome: [note.reason.value for note in outcome.notes]


@pytest.fixture
def violations():
    return find_violations


def find_violations(world, sight, before, outcome):
    """What no decision may do, as sentences; empty when all is well."""
    checks = (_shares, _names, _aborted, _rises, _readiness, _capacity)
    return [said for check in checks for said in check(world, sight, before, outcome)]


def _shares(_world, _sight, _before, outcome):
    total = sum(outcome.weights.values())
    if outcome.weights and total != 100:
        yield f"weights sum to {total}"
    if any(share <= 0 for share in outcome.weights.values()):
        yield "a weight is not positive"


def _names(_world, sight, _before, outcome):
    progress = outcome.progress
    known = {*sight.kept, sight.asked}
    if not set(outcome.weights) <= {progress.stable, progress.canary}:
        yield "a revision besides stable and canary has weight"
    named = {progress.stable, progress.canary, progress.pinned, *outcome.weights} - {None}
    if not named <= known:
        yield f"no such revision: {named - known}"
    if progress.canary == progress.stable:
        yield "one revision is both"


def _aborted(world, sight, _before, outcome):
    progress = outcome.progress
    shrinks = world.policy.dynamic_stable_scale and progress.state is State.ABORTING
    if progress.aborted in outcome.weights and not shrinks and progress.state is not State.UNDOING:
        yield "an aborted revision has weight"
    if shrinks and outcome.weights.get(progress.aborted, 0) > sight.published.get(
        progress.aborted, 0
    ):
        yield "an aborted revision gains weight"


def _rises(_world, sight, _before, outcome):
    if sight.settled and not sight.paused:
        return
    stable = outcome.progress.stable
    for name, share in outcome.weights.items():
        if name != stable and share > sight.published.get(name, 0):
            yield f"{name} rises while {'paused' if sight.paused else 'not settled'}"


def _readiness(_world, sight, _before, outcome):
    progress = outcome.progress
    held = sight.paused or not sight.settled or progress.canary in sight.marked_aborted
    if progress.canary is None or progress.state not in RISING or held:
        return
    ready = {
        name: sight.tracks[name].ready_total if name in sight.tracks else 0
        for name in (progress.stable, progress.canary)
    }
    confirmed = progress.state is not State.PAUSED
    for name, share in outcome.weights.items():
        other = progress.stable if name == progress.canary else progress.canary
        if share and not ready[name] and ready[other] and confirmed and any(sight.counts.values()):
            yield f"{name} has {share} % and no Ready worker, {other} has"


def _capacity(world, sight, _before, outcome):
    progress = outcome.progress
    if progress.strategy == "TerminateFirst":
        return
    share = max(outcome.weights.get(progress.stable, 0), sight.published.get(progress.stable, 0))
    if progress.state in RISING and progress.stable not in sight.published:
        share = outcome.weights.get(progress.stable, 0)
    for name, count in world.counts.items():
        have = outcome.scale[progress.stable].get(name, 0)
        if have * 100 < count * share:
            yield f"stable keeps {have} of {count} {name} for {share} %"
