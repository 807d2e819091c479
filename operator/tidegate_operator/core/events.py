"""Events of a pool, as values. The shell drops repetitions of (reason, message)."""

from collections.abc import Callable, Iterable, Sequence

from tidegate_api.names import ConditionType, EventReason, Reason
from tidegate_api.template import Model
from tidegate_operator.core.conditions import Verdict
from tidegate_operator.core.decision import Deletion, Event
from tidegate_operator.core.facts import Facts
from tidegate_operator.core.sources import REMOTE_SCHEMES, split_uri
from tidegate_operator.core.workersets import parse_template

_ON_THE_WAY = frozenset(
    {
        Reason.WORKERS_STARTING,
        Reason.REPLACING_REVISION,
        Reason.ROUTERS_CATCHING_UP,
        Reason.PAUSED,
    }
)


def revision_created(facts: Facts) -> Iterable[Event]:
    """The template says something that no kept revision says."""
    for item in facts.plan.fresh:
        yield Event(EventReason.REVISION_CREATED, f"revision {item.name}")


def sources_unverified(facts: Facts) -> Iterable[Event]:
    """A fetched source without sha256, once per revision: its content may change unseen."""
    for item in facts.plan.fresh:
        template = parse_template(item)
        for model in template.models if template else []:
            if _is_unverified(model):
                text = f"revision {item.name}: model {model.name} has no source.sha256"
                yield Event(EventReason.SOURCE_UNVERIFIED, text, warning=True)


def _is_unverified(model: Model) -> bool:
    return split_uri(model.source.uri)[0] in REMOTE_SCHEMES and not model.source.sha256


def sets_created(facts: Facts) -> Iterable[Event]:
    """A worker set gets its Deployment."""
    for target in facts.targets:
        if target.workers.deployment is None and target.wanted:
            text = f"{target.workers.name} with {target.wanted} workers"
            yield Event(EventReason.WORKER_SET_CREATED, text)


def sets_scaled(facts: Facts) -> Iterable[Event]:
    """A Deployment changes its size."""
    for target in facts.targets:
        now = facts.drains.replicas[target.workers.name]
        before = target.workers.replicas
        if target.workers.deployment is not None and now != before:
            text = f"{target.workers.name} from {before} to {now} workers"
            yield Event(EventReason.SCALING_WORKER_SET, text)


def weight_moved(facts: Facts) -> Iterable[Event]:
    """The requests go to another revision; a rollout tells its own weights."""
    if facts.plan.steered:
        return
    if facts.course.moved:
        text = f"revision {facts.course.serving} gets 100 % of the requests"
        yield Event(EventReason.TRAFFIC_WEIGHT_UPDATED, text)


def workers_draining(facts: Facts) -> Iterable[Event]:
    """Workers are marked that the published table does not mark yet."""
    for item in facts.sets:
        fresh = [
            pod.name
            for pod in item.pods
            if pod.uid in facts.drains.draining
            and pod.uid not in facts.drains.memory
            and not pod.terminating
            and pod.ready
        ]
        if fresh:
            text = f"{item.name}: {', '.join(fresh[:5])}"
            yield Event(EventReason.WORKERS_DRAINING, text + (" ..." if fresh[5:] else ""))


def workers_failed(facts: Facts) -> Iterable[Event]:
    """A worker cannot start; the text is the kubelet's or the agent's."""
    for failure in facts.failures[:3]:
        text = f"{failure.reason}: {failure.message}"
        yield Event(EventReason.WORKER_FAILED, text, warning=True)


def image_insecure(facts: Facts) -> Iterable[Event]:
    """A worker's Triton is older than the security floor."""
    versions = {
        scrape.state.server.version
        for scrape in facts.observation.scrapes.values()
        if scrape.state and scrape.state.server.below_security_floor
    }
    for version in sorted(versions):
        text = f"Triton {version} is below the security floor: for demos and tests only"
        yield Event(EventReason.WORKER_IMAGE_INSECURE, text, warning=True)


def names_conflict(facts: Facts) -> Iterable[Event]:
    """An object that is not ours bears a name that we need."""
    for item in facts.conflicts[:3]:
        text = f"{item.kind} {item.name} exists and is not controlled by this pool"
        yield Event(EventReason.NAME_CONFLICT, text, warning=True)


EVENTS: Sequence[Callable[[Facts], Iterable[Event]]] = (
    revision_created,
    sources_unverified,
    sets_created,
    sets_scaled,
    weight_moved,
    workers_draining,
    workers_failed,
    image_insecure,
    names_conflict,
)


def list_events(
    facts: Facts, verdict: Verdict, stable: str | None, deletes: Sequence[Deletion]
) -> tuple[Event, ...]:
    """Return what happened in this decision, in order."""
    told = [event for rule in EVENTS for event in rule(facts)]
    return (
        *told,
        *_removed(deletes, facts),
        *_promoted(stable, facts),
        *_readiness(verdict, facts),
    )


def _removed(deletes: Sequence[Deletion], facts: Facts) -> Iterable[Event]:
    pool = facts.observation.pool.metadata.name
    kept = {f"{pool}-{item.name}": item.name for item in facts.plan.kept}
    for item in deletes:
        if item.kind == "Deployment":
            yield Event(EventReason.WORKER_SET_REMOVED, item.name)
        if item.kind == "ControllerRevision" and item.name in kept:
            yield Event(EventReason.REVISION_REMOVED, f"revision {kept[item.name]} (history)")


def _promoted(stable: str | None, facts: Facts) -> Iterable[Event]:
    if stable is not None and stable != facts.observation.pool.status.stable_revision:
        yield Event(EventReason.REVISION_PROMOTED, f"revision {stable} is stable")


def _readiness(verdict: Verdict, facts: Facts) -> Iterable[Event]:
    before = [
        item
        for item in facts.observation.pool.status.conditions
        if item.type == ConditionType.READY.value
    ]
    if before and before[0].status == verdict.status:
        return
    text = f"{verdict.reason}: {verdict.message}"
    if verdict.status == "True":
        yield Event(EventReason.POOL_READY, text)
    elif before:
        warning = verdict.reason not in _ON_THE_WAY
        yield Event(EventReason.POOL_NOT_READY, text, warning=warning)
