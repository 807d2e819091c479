"""What the commands write is what the operator's state machine obeys."""

from dataclasses import replace

import pytest

from tidegate_api.rollout import ModelRollout, ModelRolloutStatus
from tidegate_cli.core import verbs
from tidegate_cli.core.snapshot import Revision
from tidegate_operator.core.rollout.machine import advance
from tidegate_operator.core.rollout.model import Progress, Sight, State, Track
from tidegate_operator.core.rollout.persist import remembered
from tidegate_operator.core.rollout.policy import resolve

NOW = "2026-01-01T00:00:00Z"
KEPT = ("r0", "r1", "r2")
COUNTS = {"cpu": 2}


class Cluster:
    """An operator that ticks once a second over workers that are Ready at once."""

    def __init__(self, steps):
        spec = {"poolRef": {"name": "p"}, "steps": steps}
        self.rollout = ModelRollout.model_validate({"metadata": {"name": "r"}, "spec": spec})
        self.policy = resolve(self.rollout.spec)
        self.progress = Progress(state=State.HEALTHY, stable="r1", asked="r1", since_s=1e9)
        self.sight = Sight(
            now_s=1e9, asked="r2", counts=COUNTS, kept=KEPT, was_stable="r1",
            tracks={name: Track(ready=COUNTS, replicas=COUNTS) for name in KEPT},
            published={"r1": 100},
        )  # fmt: skip

    def settle(self):
        for _ in range(100):
            outcome = advance(self.policy, self.sight, self.progress)
            self.progress = outcome.progress
            marked = self.sight.marked_aborted | {outcome.mark_aborted} - {None}
            self.sight = replace(
                self.sight,
                now_s=self.sight.now_s + 1,
                published={k: v for k, v in outcome.weights.items() if v},
                marked_aborted=marked - {outcome.unmark_aborted},
            )
        return self

    def seen(self):
        status = remembered(self.policy, self.progress, ModelRolloutStatus())
        return self.rollout.model_copy(update={"status": status})

    def annotate(self, change):
        marks = {k: v for k, v in change.patch["metadata"]["annotations"].items() if v}
        self.sight = replace(self.sight, verbs={**self.sight.verbs, **marks})
        return self.settle()


@pytest.fixture
def gated():
    """Return a rollout that waits at the gate of its second step."""
    made = Cluster([{"setWeight": 50}, {"pause": {}}, {"setWeight": 75}, {"pause": {}}]).settle()
    assert (made.progress.state, made.progress.step_index) == (State.PAUSED, 1)
    return made


def test_promote_ends_one_gate_and_again_the_next(gated):
    gated.annotate(verbs.promote(gated.seen(), NOW, full=False))
    assert (gated.progress.state, gated.progress.step_index) == (State.PAUSED, 3)
    gated.annotate(verbs.promote(gated.seen(), NOW, full=False))
    assert gated.progress.stable == "r2"


def test_promote_full_skips_every_gate(gated):
    gated.annotate(verbs.promote(gated.seen(), NOW, full=True))
    assert gated.progress.stable == "r2"


def test_abort_retry_and_abort_again(gated):
    gated.annotate(verbs.abort(gated.seen(), NOW))
    assert (gated.progress.state, gated.progress.aborted) == (State.ABORTED, "r2")
    gated.annotate(verbs.retry(gated.seen(), NOW))
    assert (gated.progress.state, gated.progress.step_index) == (State.PAUSED, 1)
    gated.annotate(verbs.abort(gated.seen(), NOW))
    assert gated.progress.state is State.ABORTED, "the second abort is another edge"


def test_promote_at_the_same_step_after_a_retry(gated):
    gated.annotate(verbs.promote(gated.seen(), NOW, full=False))
    gated.annotate(verbs.abort(gated.seen(), NOW))
    gated.annotate(verbs.retry(gated.seen(), NOW))
    assert gated.progress.step_index == 1
    gated.annotate(verbs.promote(gated.seen(), NOW, full=False))
    assert gated.progress.step_index == 3


def test_undo_after_a_promotion_and_retry_of_what_spec_asks_for(gated):
    gated.annotate(verbs.promote(gated.seen(), NOW, full=True))
    kept = [Revision(name=name, number=number) for number, name in enumerate(KEPT, 1)]
    gated.annotate(verbs.undo(gated.seen(), kept, "", NOW))
    assert (gated.progress.state, gated.progress.stable) == (State.PINNED, "r1")
    gated.annotate(verbs.retry(gated.seen(), NOW))
    assert (gated.progress.state, gated.progress.canary) == (State.PAUSED, "r2")
