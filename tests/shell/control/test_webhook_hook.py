"""What the reporter of rollouts notifies of: each transition, and no repetition."""

import asyncio

import pytest

from tidegate_api.names import RolloutEventReason
from tidegate_api.rollout import ModelRolloutStatus
from tidegate_operator.caches import Caches, PoolKey
from tidegate_operator.core.decision import RolloutDecision
from tidegate_operator.core.rollout.model import Note
from tidegate_operator.rollouts import RolloutReporter
from tidegate_operator.telemetry import Telemetry
from tidegate_operator.writer import Writer

KEY = PoolKey("ml", "vision")
ROLLOUT = {
    "apiVersion": "tidegate.dev/v1alpha1",
    "kind": "ModelRollout",
    "metadata": {"name": "ship", "namespace": "ml"},
    "spec": {"poolRef": {"name": "vision"}},
}


@pytest.fixture
async def reporter(api, client, background):
    api.put("/apis/tidegate.dev/v1alpha1/namespaces/ml/modelrollouts/ship", ROLLOUT)
    caches = Caches(client, (), "", lambda _key: None)
    for cache in caches.all:
        background(cache.run())
    await asyncio.wait_for(caches.synced(), 8)
    return RolloutReporter(caches, Writer(client, caches, lambda: True), Telemetry())


@pytest.fixture
def told(reporter):
    heard = []
    reporter.notify = heard.append
    return heard


@pytest.fixture
def decide(api, reporter):
    document = "/apis/tidegate.dev/v1alpha1/namespaces/ml/modelrollouts/ship"

    async def report(reason, message, state):
        uid = api.get(document)["metadata"]["uid"]
        status = ModelRolloutStatus(state=state, canary_revision="r2", stable_revision="r1")
        note = Note(reason, message, warning=True)
        decision = RolloutDecision(name="ship", uid=uid, status=status, notes=(note,))
        await reporter.report(KEY, [decision])

    return report


async def test_a_transition_is_told_with_its_object_and_revision(told, decide):
    await decide(RolloutEventReason.ROLLOUT_ABORTED, "errors", "Aborting")
    (one,) = told
    assert (one.reason, one.message, one.namespace, one.rollout, one.revision, one.warning) == (
        "RolloutAborted", "errors", "ml", "ship", "r2", True,
    )  # fmt: skip


async def test_what_stays_so_is_told_once(told, decide):
    for _ in range(3):
        await decide(RolloutEventReason.INVALID_SPEC, "weights fall", "Healthy")
    assert len(told) == 1


async def test_a_second_abort_in_the_same_words_is_told_again_under_another_id(told, decide):
    await decide(RolloutEventReason.ROLLOUT_ABORTED, "cannot load", "Aborting")
    await decide(RolloutEventReason.ROLLOUT_UPDATED, "retry", "Starting")
    await decide(RolloutEventReason.ROLLOUT_ABORTED, "cannot load", "Aborting")
    aborts = [item for item in told if item.reason == "RolloutAborted"]
    assert len({item.id for item in aborts}) == 2


async def test_nobody_to_notify_changes_nothing(api, reporter, decide):
    assert reporter.notify is None
    await decide(RolloutEventReason.ROLLOUT_ABORTED, "errors", "Aborting")
    assert api.count("POST", "events") == 1
