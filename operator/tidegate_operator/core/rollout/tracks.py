"""The workers of each revision as the rollout's state machine sees them."""

from collections.abc import Iterable, Mapping, Sequence

from tidegate_api.names import Reason
from tidegate_operator.core.failures import find_failures
from tidegate_operator.core.memory import FailingSince
from tidegate_operator.core.observation import PoolObservation
from tidegate_operator.core.podfailure import Failure
from tidegate_operator.core.rollout.model import Track
from tidegate_operator.core.workersets import WorkerSet

# What another try will not mend: the rollout need not wait for its deadline.
LASTING = frozenset(
    {
        Reason.CONTAINER_CRASHED,
        Reason.CONTAINER_CONFIG_INVALID,
        Reason.MODEL_DIGEST_MISMATCH,
        Reason.MODEL_CONFIG_INVALID,
        Reason.MODEL_LOAD_FAILED,
        Reason.BACKEND_NOT_IN_IMAGE,
        Reason.INSUFFICIENT_DEVICE_MEMORY,
        Reason.SERVER_CRASHED,
    }
)
_NO_ROOM = frozenset({Reason.INSUFFICIENT_ACCELERATOR, Reason.UNSCHEDULABLE})


def watch_failures(
    observation: PoolObservation,
    sets: Sequence[WorkerSet],
    before: Mapping[str, FailingSince],
) -> dict[str, FailingSince]:
    """Return the lasting failures by revision; the time of one that goes on is kept."""
    found: dict[str, FailingSince] = {}
    for revision in {item.revision for item in sets}:
        failures = find_failures(observation, of_revision(sets, revision))
        lasting = [item for item in failures if item.reason in LASTING]
        if lasting:
            known = before.get(revision)
            since_s = known.since_s if known else observation.now_s
            text = f"{lasting[0].reason}: {lasting[0].message}"
            found[revision] = FailingSince(text, since_s)
    return found


def tracks(
    observation: PoolObservation,
    sets: Sequence[WorkerSet],
    failing: Mapping[str, FailingSince],
) -> dict[str, Track]:
    """Return a track for each revision that has a worker set."""
    revisions = {item.revision for item in sets}
    return {
        name: _track(observation, of_revision(sets, name), failing.get(name)) for name in revisions
    }


def of_revision(sets: Sequence[WorkerSet], revision: str) -> list[WorkerSet]:
    """Return the sets of one revision."""
    return [item for item in sets if item.revision == revision]


def _track(
    observation: PoolObservation, sets: Sequence[WorkerSet], failing: FailingSince | None
) -> Track:
    return Track(
        ready=_sums((item.accelerator, item.ready) for item in sets),
        replicas=_sums((item.accelerator, item.replicas) for item in sets),
        failure=failing.text if failing else "",
        failing_since_s=failing.since_s if failing else None,
        unschedulable=_no_room(find_failures(observation, sets)),
    )


def _no_room(failures: Iterable[Failure]) -> str:
    return next((item.message for item in failures if item.reason in _NO_ROOM), "")


def _sums(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for name, count in pairs:
        totals[name] = totals.get(name, 0) + count
    return totals
