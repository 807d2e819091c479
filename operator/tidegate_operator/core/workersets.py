"""The worker sets of a pool: those the desired revision needs, and those that still exist."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from tidegate_api import names
from tidegate_api.pool import AcceleratorClass
from tidegate_api.template import JsonObject, WorkerTemplate
from tidegate_api.workermodels import WorkerModels
from tidegate_operator.core.identity import set_identity, set_name
from tidegate_operator.core.observation import (
    ObservedDeployment,
    ObservedPod,
    ObservedRevision,
    PoolObservation,
)
from tidegate_operator.core.podtemplate import pod_template
from tidegate_operator.core.revisions import KeptRevision, RevisionPlan, own_records
from tidegate_operator.core.rollout.inplace import document
from tidegate_operator.core.stored import StoredSet, read_set
from tidegate_operator.core.workermodels import worker_models

ENDED_PHASES = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSet:
    """One revision on one class: a Deployment, its Service and its models."""

    name: str
    stored: StoredSet
    desired: bool  # part of the desired revision as spec.accelerators are now
    current: bool = False  # part of a revision that a rollout keeps, as spec.accelerators are now
    deployment: ObservedDeployment | None
    record: ObservedRevision | None
    pods: tuple[ObservedPod, ...]
    hosts: str | None = None  # another revision than it was made for, promoted in place
    models: WorkerModels | None = None  # what its agents are told; None: as it was made

    @property
    def revision(self) -> str:
        """The revision that its workers serve."""
        return self.hosts or self.stored.revision

    @property
    def document(self) -> WorkerModels:
        """What its agents shall serve."""
        return self.models or self.stored.models

    @property
    def accelerator(self) -> str:
        """The class's name."""
        return self.stored.accelerator

    @property
    def replicas(self) -> int:
        """Workers that the Deployment asks for."""
        return self.deployment.replicas if self.deployment else 0

    @property
    def alive(self) -> tuple[ObservedPod, ...]:
        """Pods that run or will; neither ended nor on their way out."""
        return tuple(p for p in self.pods if not p.terminating and p.phase not in ENDED_PHASES)

    @property
    def ready(self) -> int:
        """Alive pods that are Ready."""
        return sum(pod.ready for pod in self.alive)


def collect_sets(observation: PoolObservation, plan: RevisionPlan) -> tuple[WorkerSet, ...]:
    """Return the desired sets in class order, a rollout's others, then the obsolete by name."""
    records = {item.meta.name: item for item in own_records(observation) if read_set(item)}
    uid = observation.pool.metadata.uid
    deployments = {
        item.meta.name: item for item in observation.deployments if item.meta.controller_uid == uid
    }
    hosts = {name: _hosted(item, plan) for name, item in deployments.items()}
    desired = _sets_of(observation, plan, plan.desired, records, deployments)
    wanted = dict(desired)
    for other in plan.others:
        wanted |= _sets_of(observation, plan, other, records, deployments)
    obsolete = sorted((records.keys() | deployments.keys()) - wanted.keys())
    stored = {name: _existing(name, records, deployments) for name in obsolete}
    pods = _pods_by_set(observation.pods)
    return tuple(
        WorkerSet(
            name=name,
            stored=content,
            desired=name in desired,
            current=name in wanted,
            deployment=deployments.get(name),
            record=records.get(name),
            pods=pods.get(name, ()),
            hosts=hosts.get(name),
            models=_models(observation, plan, content, hosts.get(name), second=name in desired),
        )
        for name, content in {**wanted, **stored}.items()
    )


def _sets_of(
    observation: PoolObservation,
    plan: RevisionPlan,
    revision: KeptRevision | None,
    records: Mapping[str, ObservedRevision],
    deployments: Mapping[str, ObservedDeployment],
) -> dict[str, StoredSet]:
    """Existing sets keep their rendering; only a set without any is rendered now."""
    template = parse_template(revision)
    if revision is None or template is None:
        return {}
    found: dict[str, StoredSet] = {}
    pairs = zip(observation.pool.spec.accelerators, observation.accelerators, strict=True)
    for accelerator, raw in pairs:
        identity = set_identity(revision.name, raw, plan.restarted_at)
        name = _name_of(observation, plan, identity, records, deployments)
        kept = read_set(records[name]) if name in records else None
        pod = deployments[name].pod_template if name in deployments else None
        found[name] = kept or _render(
            observation,
            plan,
            revision,
            template,
            accelerator,
            name=name,
            identity=identity,
            pod=pod,
        )
    return found


def _name_of(
    observation: PoolObservation,
    plan: RevisionPlan,
    identity: JsonObject,
    records: Mapping[str, ObservedRevision],
    deployments: Mapping[str, ObservedDeployment],
) -> str:
    """The set that hosts this revision, else the one made for it, else its derived name."""
    revision = identity["revision"]
    for name, item in deployments.items():
        kept = read_set(records[name]) if name in records else None
        same = kept is not None and _is_alike(kept.identity, identity)
        if same and _hosted(item, plan) == revision:
            return name
    pool, class_name = observation.pool.metadata.name, _class_name(identity)
    name = set_name(pool, class_name, identity, plan.collisions)
    if name in deployments and _hosted(deployments[name], plan) is not None:
        return set_name(pool, class_name, identity, plan.collisions + 1)
    return name


def _is_alike(one: JsonObject, other: JsonObject) -> bool:
    """Whether two sets differ at most in the revision that they were made for."""
    return all(one.get(key) == other.get(key) for key in ("class", "restartedAt"))


def _class_name(identity: JsonObject) -> str:
    parts = identity["class"]
    return str(parts.get("name")) if isinstance(parts, dict) else ""


def _hosted(deployment: ObservedDeployment, plan: RevisionPlan) -> str | None:
    """The revision that was promoted inside this set's workers, or is in this decision."""
    made_for = deployment.meta.labels.get(names.LABEL_REVISION)
    hosted = deployment.meta.annotations.get(names.ANNOTATION_HOSTS) or None
    if plan.adopts is not None and plan.desired is not None and plan.adopts == (hosted or made_for):
        return plan.desired.name if plan.desired.name != made_for else None
    return hosted if hosted != made_for else None


def _models(
    observation: PoolObservation,
    plan: RevisionPlan,
    stored: StoredSet,
    hosted: str | None,
    *,
    second: bool,
) -> WorkerModels | None:
    """What the agents are told where that is more than what the set was made for."""
    tried = plan.second if second else None
    if hosted is None and tried is None:
        return None
    known = {item.name: item for item in (*plan.kept, *plan.recorded)}
    accelerator = next(
        (item for item in observation.pool.spec.accelerators if item.name == stored.accelerator),
        None,
    )
    main = _told(known.get(hosted or ""), accelerator)
    return document(stored.models, main, _told(tried, accelerator))


def _told(
    revision: KeptRevision | None, accelerator: AcceleratorClass | None
) -> WorkerModels | None:
    template = parse_template(revision)
    if revision is None or template is None or accelerator is None:
        return None
    return worker_models(revision.name, template, accelerator)


def _render(
    observation: PoolObservation,
    plan: RevisionPlan,
    revision: KeptRevision,
    template: WorkerTemplate,
    accelerator: AcceleratorClass,
    *,
    name: str,
    identity: JsonObject,
    pod: JsonObject | None,
) -> StoredSet:
    """A Deployment that lost its record is adopted with the template it has."""
    return StoredSet(
        revision=revision.name,
        accelerator=accelerator.name,
        identity=identity,
        pod_template=pod
        or pod_template(
            pool=observation.pool,
            template=template,
            accelerator=accelerator,
            image=_image(observation, plan, revision),
            revision=revision.name,
            set_name=name,
        ),
        models=worker_models(revision.name, template, accelerator),
    )


def _image(observation: PoolObservation, plan: RevisionPlan, revision: KeptRevision) -> str:
    """The image that the revision was resolved to; a restart resolves the default anew."""
    written = revision.stored.template.get("image")
    if plan.restarted_at and not written:
        return observation.settings.worker_image
    return revision.stored.image


def parse_template(revision: KeptRevision | None) -> WorkerTemplate | None:
    """Return a kept template as a model, None if it is not one (any more)."""
    if revision is None:
        return None
    try:
        return WorkerTemplate.model_validate(revision.stored.template)
    except ValidationError:
        return None


def _existing(
    name: str,
    records: Mapping[str, ObservedRevision],
    deployments: Mapping[str, ObservedDeployment],
) -> StoredSet:
    kept = read_set(records[name]) if name in records else None
    return kept or _from_deployment(deployments[name])


def _from_deployment(deployment: ObservedDeployment) -> StoredSet:
    """An obsolete set without a record: enough to drain and remove it."""
    revision = deployment.meta.labels.get(names.LABEL_REVISION, "")
    return StoredSet(
        revision=revision,
        accelerator=deployment.meta.labels.get(names.LABEL_CLASS, ""),
        identity={},
        pod_template=deployment.pod_template,
        models=WorkerModels(revision=revision, models=[]),
    )


def _pods_by_set(pods: Iterable[ObservedPod]) -> dict[str, tuple[ObservedPod, ...]]:
    groups: dict[str, tuple[ObservedPod, ...]] = {}
    for pod in sorted(pods, key=lambda item: item.name):
        groups[pod.worker_set] = (*groups.get(pod.worker_set, ()), pod)
    return groups


def by_class(sets: Iterable[WorkerSet], revision: str) -> dict[str, tuple[WorkerSet, ...]]:
    """Return a revision's sets per class; two while a class is edited."""
    groups: dict[str, tuple[WorkerSet, ...]] = {}
    for item in sets:
        if item.revision == revision:
            groups[item.accelerator] = (*groups.get(item.accelerator, ()), item)
    return groups
