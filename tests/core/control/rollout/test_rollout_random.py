"""Random edits, faults, verbs and lost writes: what must hold at every decision, and that it ends.

Each walk ends with a quiet phase in which everything is healed; the asked revision must then
become stable, whatever happened before.
"""

import os
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from tidegate_operator.core.rollout.model import State, StepPlan
from tidegate_operator.core.rollout.persist import status_of

# 250 walks of up to 50 rules are 10 000 steps and more of at least one decision; the default run
# takes the same walks each time.
DEFAULT_WALKS = 60
WALKS = int(os.environ.get("TIDEGATE_TEST_WALKS", DEFAULT_WALKS))
QUIET_TICKS = 500

REVISIONS = st.sampled_from(["r1", "r2", "r3", "r4"])
STEP_LISTS = st.sampled_from(
    [
        (),
        (StepPlan(weight=5), StepPlan(pause_s=3.0), StepPlan(weight=50)),
        (StepPlan(weight=25), StepPlan()),
        (StepPlan(), StepPlan(weight=100)),
        (StepPlan(weight=0), StepPlan(weight=33), StepPlan(pause_s=0.0)),
    ]
)
COUNTS = st.sampled_from(
    [{"a10g": 4}, {"a10g": 1}, {"a10g": 3, "cpu": 2}, {"cpu": 2, "a10g": 0}, {"a10g": 0}]
)


class Walk(RuleBasedStateMachine):
    def __init__(self, make_world, violations):
        super().__init__()
        self.world = make_world(analysis={}, progress_deadline_s=60.0, scale_down_delay_s=5.0)
        self.world.kept = ["r4", "r1"]
        self.violations = violations
        self.table_first = False

    def decide(self, seconds=1.0, **lost):
        world = self.world
        world.now_s += seconds
        before = world.progress
        sight, outcome = world.decide()
        assert self.violations(world, sight, before, outcome) == []
        world.tick(0.0, table_first=self.table_first, **lost)

    @rule(seconds=st.sampled_from([0.0, 1.0, 3.0, 10.0, 61.0]), count=st.integers(1, 3))
    def wait(self, seconds, count):
        for _ in range(count):
            self.decide(seconds)

    @rule(revision=REVISIONS)
    def edit(self, revision):
        self.world.edit(revision)
        self.decide()

    @rule(
        fields=st.fixed_dictionaries(
            {
                "dynamic_stable_scale": st.booleans(),
                "automatic_rollback": st.booleans(),
                "surge": st.sampled_from(["Auto", "Surge", "TerminateFirst", "InPlace"]),
                "rollback_window": st.integers(0, 2),
            }
        )
    )
    def change_spec(self, fields):
        self.world.policy = replace(self.world.policy, **fields)
        self.decide()

    @rule(steps=STEP_LISTS)
    def change_steps(self, steps):
        policy = self.world.policy
        self.world.policy = replace(policy, steps=steps, step_hash=f"{len(steps)}")
        self.decide()

    @rule(counts=COUNTS)
    def resize(self, counts):
        self.world.counts = dict(counts)
        self.decide()

    @rule(writes=st.integers(0, 4), table_first=st.booleans())
    def kill(self, writes, table_first):
        self.table_first = table_first
        self.decide(writes=writes)

    @rule()
    def lose_status(self):
        self.world.status = status_of({})
        self.decide()

    @rule()
    def read_garbage(self):
        wire = self.world.status.to_wire() | {"canaryRevision": "gone", "stateSince": "soon"}
        self.world.status = status_of(wire)
        self.decide()

    @rule(answer=st.booleans())
    def routers(self, answer):
        self.world.routers_answer = answer

    @rule(paused=st.booleans())
    def pause(self, paused):
        self.world.paused = paused
        self.decide()

    @rule(verb=st.sampled_from(["promote", "promote-full", "abort", "retry"]), aimed=st.booleans())
    def verb(self, verb, aimed):
        progress = self.world.progress
        revision = progress.aborted if verb == "retry" else progress.canary
        target = f"{revision}" if aimed else "r1"
        step = f"/{progress.step_index}" if verb == "promote" else ""
        self.world.verb(verb, f"{target}{step}@{self.world.now_s}")
        self.decide()

    @rule(revision=REVISIONS)
    def undo(self, revision):
        self.world.verb("undo", f"{revision}@{self.world.now_s}")
        self.decide()

    @rule(count=st.integers(1, 15))
    def go_well(self, count):
        for _ in range(count):
            self.world.say(passed=True)
            self.decide()

    @rule()
    def fresh_pool(self):
        world = self.world
        if world.state is State.HEALTHY:
            world.status, world.was_stable = status_of({}), None
            world.published, world.acknowledged = {}, {}
            world.replicas, world.ready, world.marked = {}, {}, set()
            self.decide()

    @rule(
        passed=st.booleans(), bad=st.booleans(), data_missing=st.booleans(), count=st.integers(1, 3)
    )
    def analyse(self, passed, bad, data_missing, count):
        for _ in range(count):
            self.world.say(passed=passed, bad=bad, data_missing=data_missing, message="p95 is 1 s")
            self.decide()

    @rule(slow=st.booleans(), no_room=st.booleans(), obstacle=st.sampled_from(["", "image"]))
    def machines(self, slow, no_room, obstacle):
        world = self.world
        world.slow, world.no_room, world.obstacle = slow, no_room, obstacle
        self.decide()

    @rule(revision=REVISIONS, count=st.integers(1, 9))
    def workers_die(self, revision, count):
        if revision in self.world.replicas:
            self.world.lose(revision, count)
            self.decide()

    @rule(revision=REVISIONS)
    def workers_come(self, revision):
        self.world.bring_up(revision)
        self.decide()

    @rule(revision=REVISIONS, broken=st.booleans())
    def break_model(self, revision, broken):
        world = self.world
        if broken:
            world.broken.add(revision)
            world.failing.setdefault(revision, world.now_s)
            world.lose(revision)
        else:
            world.broken.discard(revision)
            world.failing.pop(revision, None)
        self.decide()

    @rule()
    def guard_breaks(self):
        world = self.world
        world.local_aborts = {world.progress.canary or "r1": "router-0: 9 of 20 failed"}
        self.decide()
        world.local_aborts = {}

    def teardown(self):
        world = self.world
        world.paused = world.slow = world.no_room = False
        world.routers_answer = True
        world.broken, world.failing, world.verbs = set(), {}, {}
        for _ in range(QUIET_TICKS):
            progress = world.progress
            if progress.state is State.HEALTHY and progress.asked == world.asked:
                break
            self.guide(progress)
            world.say(passed=True)
            self.decide()
        assert world.progress.state is State.HEALTHY, world.progress
        assert world.progress.stable == world.asked
        assert world.published == {world.asked: 100}

    def guide(self, progress):
        """Do what a person would: confirm pauses, retry what was aborted."""
        world = self.world
        if progress.state is State.PAUSED:
            world.verb("promote", f"{progress.canary}/{progress.step_index}@{world.now_s}")
        elif progress.state in {State.ABORTED, State.PINNED}:
            world.verb("retry", f"{progress.aborted}@{world.now_s}")
        if world.policy.surge == "InPlace":
            world.policy = replace(world.policy, surge="Surge")


def test_random_walks_break_no_invariant_and_end_with_the_asked_revision(make_world, violations):
    run_state_machine_as_test(
        lambda: Walk(make_world, violations),
        settings=settings(
            max_examples=WALKS,
            stateful_step_count=50,
            deadline=None,
            database=None,
            derandomize=WALKS == DEFAULT_WALKS,
            suppress_health_check=list(HealthCheck),
        ),
    )
