"""The workers of each revision as the rollout's state machine sees them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tidegate_api.names import Reason
from tidegate_api.state import WorkerState
from tidegate_api.workermodels import WorkerModels
from tidegate_operator.core.failures import find_failures
from tidegate_operator.core.memory import FailingSince
from tidegate_operator.core.observation import ObservedPod, PoolObservation
from tidegate_operator.core.podfailure import Failure
from tidegate_operator.core.revisions import RevisionPlan
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
_LASTING_TEXTS = frozenset(reason.value for reason in LASTING)
_NO_ROOM = frozenset({Reason.INSUFFICIENT_ACCELERATOR, Reason.UNSCHEDULABLE})


def watch_failures(
    observation: PoolObservation,
    sets: Sequence[WorkerSet],
    before: Mapping[str, FailingSince],
) -> dict[str, FailingSince]:
    """Return the lasting failures by revision; the time of one that goes on is kept."""
    found: dict[str, FailingSince] = {}
    for revision, text in _lasting(observation, sets).items():
        known = before.get(revision)
        since_s = known.since_s if known else observation.now_s
        found[revision] = FailingSince(text, since_s)
    return found


def _lasting(observation: PoolObservation, sets: Sequence[WorkerSet]) -> dict[str, str]:
    """What another try will not mend, by revision: of its pods, or inside another's."""
    texts = {
        model.revision: f"{model.reason}: {model.message}"
        for item in sets
        for _, state in _states(observation, item)
        for model in state.models
        if model.revision not in {"", item.revision} and model.reason in _LASTING_TEXTS
    }
    for revision in {item.revision for item in sets}:
        failures = find_failures(observation, of_revision(sets, revision))
        lasting = [item for item in failures if item.reason in LASTING]
        if lasting:
            texts[revision] = f"{lasting[0].reason}: {lasting[0].message}"
    return texts


def seen_tracks(
    observation: PoolObservation,
    plan: RevisionPlan,
    sets: Sequence[WorkerSet],
    failing: Mapping[str, FailingSince],
) -> dict[str, Track]:
    """Return a track for each revision that has a worker set or is tried inside others'."""
    revisions = {item.revision for item in sets}
    found = {
        name: _track(observation, of_revision(sets, name), failing.get(name)) for name in revisions
    }
    if plan.second is not None:
        name = plan.second.name
        found[name] = _track_inside(observation, sets, name, failing.get(name))
    return found


def _track_inside(
    observation: PoolObservation,
    sets: Sequence[WorkerSet],
    revision: str,
    failing: FailingSince | None,
) -> Track:
    """A worker counts once its agent has acted on the present document and loaded every model."""
    hosts = [item for item in sets if item.document.alongside is not None]
    return Track(
        ready=_sums(
            (item.accelerator, _has_loaded(state, item.document, revision))
            for item in hosts
            for pod, state in _states(observation, item)
            if pod.ready
        ),
        failure=failing.text if failing else "",
        failing_since_s=failing.since_s if failing else None,
    )


def _has_loaded(state: WorkerState, document: WorkerModels, revision: str) -> bool:
    mine = [model for model in state.models if model.revision == revision]
    wanted = document.alongside.models if document.alongside else []
    current = state.models_generation == document.generation
    return current and len(mine) >= len(wanted) > 0 and all(model.ready for model in mine)


def _states(
    observation: PoolObservation, item: WorkerSet
) -> Iterator[tuple[ObservedPod, WorkerState]]:
    for pod in item.alive:
        scrape = observation.scrapes.get(pod.uid)
        if scrape is not None and scrape.state is not None:
            yield pod, scrape.state


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
