import pytest

from tidegate_api.pool import InferencePool
from tidegate_api.rollout import ModelRollout
from tidegate_cli.core.snapshot import Revision, Snapshot, Worker, WorkerSet

NOW_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
STEPS = [
    {"setWeight": 5},
    {"pause": {"duration": "2m"}},
    {"setWeight": 50},
    {"pause": {}},
]


def rollout_document(status=None, annotations=None, **spec):
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "ModelRollout",
        "metadata": {
            "name": "vision", "namespace": "ml", "generation": 3, "resourceVersion": "77",
            "creationTimestamp": "2025-12-31T23:00:00Z", "annotations": annotations or {},
        },
        "spec": {"poolRef": {"name": "vision"}, "steps": STEPS, **spec},
        "status": {
            "observedGeneration": 3, "phase": "Progressing", "currentStepIndex": 1,
            "stepCount": 4, "stepStartedAt": "2025-12-31T23:59:30Z", "stableRevision": "r1",
            "canaryRevision": "r2", "askedRevision": "r2", "canaryWeight": 5,
            "verifiedWeight": 5, **(status or {}),
        },
    }  # fmt: skip


def pool_document(**status):
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": "vision", "namespace": "ml"},
        "spec": {
            "template": {"models": [{"name": "a", "source": {"uri": "pvc://m/a/1"}}]},
            "accelerators": [{"name": "cpu", "kind": "CPU"}],
        },
        "status": {
            "desiredReplicas": 2, "readyReplicas": 2, "stableRevision": "r1",
            "verifiedWeights": [{"revision": "r1", "weight": 95}, {"revision": "r2", "weight": 5}],
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AsDesired",
                "lastTransitionTime": "2025-12-31T23:00:00Z",
            }],
            **status,
        },
    }  # fmt: skip


@pytest.fixture
def rollout():
    """Return `rollout(status, annotations, **spec)`: one at its second step, a pause of 2 m."""

    def make(status=None, annotations=None, **spec):
        return ModelRollout.model_validate(rollout_document(status, annotations, **spec))

    return make


@pytest.fixture
def document():
    return rollout_document


@pytest.fixture
def pool_json():
    return pool_document


@pytest.fixture
def pool():
    return InferencePool.model_validate(pool_document())


@pytest.fixture
def revisions():
    return (
        Revision(name="r0", number=1, image="worker:0", models={"a": "pvc://m/a/0"}),
        Revision(name="r1", number=2, image="worker:1", models={"a": "pvc://m/a/1"}),
        Revision(name="r2", number=3, image="worker:1", models={"a": "pvc://m/a/2"}),
    )


@pytest.fixture
def snapshot(rollout, pool, revisions):
    """Return `snapshot(status, **spec)`: two workers of r1, one starting of r2."""

    def make(status=None, annotations=None, **spec):
        old = (Worker("w1", ready=True, state="Ready"), Worker("w2", ready=True, state="Ready"))
        new = (Worker("w3", ready=False, state="CrashLoopBackOff, 2 restarts"),)
        return Snapshot(
            now_s=NOW_S,
            rollout=rollout(status, annotations, **spec),
            pool=pool,
            revisions=revisions,
            sets=(
                WorkerSet(name="s1", revision="r1", accelerator="cpu", replicas=2, workers=old),
                WorkerSet(name="s2", revision="r2", accelerator="cpu", replicas=1, workers=new),
            ),
            published={"r1": 95, "r2": 5},
        )

    return make


@pytest.fixture
def now_s():
    return NOW_S
