"""Which revision the pool shall run, from what the user wrote and what is already kept."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate_api.names import ANNOTATION_RESTARTED_AT
from tidegate_api.template import JsonObject
from tidegate_operator.core.identity import (
    revision_hash,
    revision_object_name,
    set_identity,
    set_name,
)
from tidegate_operator.core.observation import ObservedRevision, PoolObservation
from tidegate_operator.core.stored import StoredRevision, read_revision, read_set

_MAX_COLLISIONS = 16
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRevision:
    """A revision with its ControllerRevision, if that exists already."""

    name: str
    stored: StoredRevision
    number: int
    record: ObservedRevision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionPlan:
    """`desired` is None only while a paused pool never ran."""

    asked: str  # what the spec says
    desired: KeptRevision | None  # what to run: `asked`, unless paused
    kept: tuple[KeptRevision, ...]  # every revision that exists, oldest first
    collisions: int
    paused: bool
    others: tuple[KeptRevision, ...] = ()  # that a rollout keeps beside the desired one
    tried: KeptRevision | None = None  # the canary, whether it has workers of its own or not
    second: KeptRevision | None = None  # that a rollout tries inside the desired one's workers
    adopts: str | None = None  # the revision whose workers host the desired one from now on
    marked: frozenset[str] = frozenset()  # whose records say that they were aborted
    restarted_at: str = ""  # the last restart that a user asked for, RFC 3339
    steered: bool = False  # a rollout decides, so `asked` may differ from `desired` for long

    @property
    def held_back(self) -> bool:
        """Whether `paused` keeps the asked revision from starting."""
        if self.steered:
            return False
        return self.desired is None or self.desired.name != self.asked

    @property
    def fresh(self) -> tuple[KeptRevision, ...]:
        """The revisions of this plan that are not kept yet."""
        return tuple(item for item in self.recorded if item.record is None)

    @property
    def recorded(self) -> tuple[KeptRevision, ...]:
        """The revisions whose records must exist, each once."""
        every = (self.desired, *self.others, self.tried)
        found = {item.name: item for item in every if item is not None}
        return tuple(found.values())


def last_restart(observation: PoolObservation, annotations: Mapping[str, str]) -> str:
    """Return the newest restart asked for by the pool, its rollout (`annotations`) or before.

    It is kept in status, so that taking the annotation away restarts nothing.
    """
    asked = (
        observation.pool.metadata.annotations.get(ANNOTATION_RESTARTED_AT, ""),
        annotations.get(ANNOTATION_RESTARTED_AT, ""),
    )
    known = observation.pool.status.restarted_at or ""
    return max([known, *(value for value in asked if _INSTANT.fullmatch(value))])


def plan_revisions(
    observation: PoolObservation, template: JsonObject | None, *, paused: bool
) -> RevisionPlan:
    """Return the desired revision; paused keeps the one that was desired before.

    `template`: what shall run; None keeps the stable revision, whatever the spec says.
    """
    kept = kept_revisions(observation)
    known = {item.name: item for item in kept}
    if template is None:
        return _kept_plan(observation, kept, known, paused=paused)
    collisions = _collisions(observation, template)
    asked = revision_hash(template, collisions)
    desired: KeptRevision | None
    if paused:
        before = known.get(observation.pool.status.desired_revision or "")
        desired = before or known.get(asked) or (kept[-1] if kept else None)
    else:
        desired = _current(observation, template, asked, known)
    return RevisionPlan(
        asked=asked, desired=desired, kept=kept, collisions=collisions, paused=paused
    )


def _kept_plan(
    observation: PoolObservation,
    kept: tuple[KeptRevision, ...],
    known: Mapping[str, KeptRevision],
    *,
    paused: bool,
) -> RevisionPlan:
    status = observation.pool.status
    stable = known.get(status.stable_revision or "") or known.get(status.desired_revision or "")
    return RevisionPlan(
        asked=stable.name if stable else "",
        desired=stable,
        kept=kept,
        collisions=status.collision_count or 0,
        paused=paused,
    )


def _current(
    observation: PoolObservation,
    template: JsonObject,
    asked: str,
    known: Mapping[str, KeptRevision],
) -> KeptRevision:
    """The asked revision; one that returns after others takes the newest number, as Deployments'
    revisions do, and keeps the image that it was resolved to.
    """
    newest = max((item.number for item in known.values()), default=0)
    found = known.get(asked)
    if found is None:
        written = template.get("image")
        image = written if isinstance(written, str) and written else ""
        stored = StoredRevision(template=template, image=image or observation.settings.worker_image)
        return KeptRevision(name=asked, stored=stored, number=newest + 1, record=None)
    number = found.number if found.number == newest else newest + 1
    return KeptRevision(name=asked, stored=found.stored, number=number, record=found.record)


def kept_revisions(observation: PoolObservation) -> tuple[KeptRevision, ...]:
    """Return the revisions that this pool's ControllerRevisions keep, oldest first."""
    prefix = f"{observation.pool.metadata.name}-"
    found = [
        KeptRevision(
            name=item.meta.name.removeprefix(prefix),
            stored=stored,
            number=item.number,
            record=item,
        )
        for item in own_records(observation)
        if (stored := read_revision(item)) is not None
    ]
    return tuple(sorted(found, key=lambda item: (item.number, item.name)))


def own_records(observation: PoolObservation) -> list[ObservedRevision]:
    """Return the ControllerRevisions that this very pool controls."""
    uid = observation.pool.metadata.uid
    return [item for item in observation.revisions if item.meta.controller_uid == uid]


def _collisions(observation: PoolObservation, template: JsonObject) -> int:
    """Return the salt at which no kept object says other things under the name we derive."""
    records = {item.meta.name: item for item in own_records(observation)}
    first = observation.pool.status.collision_count or 0
    for salt in range(first, first + _MAX_COLLISIONS):
        if not _collides(observation, template, records, salt):
            return salt
    return first + _MAX_COLLISIONS


def _collides(
    observation: PoolObservation,
    template: JsonObject,
    records: Mapping[str, ObservedRevision],
    salt: int,
) -> bool:
    pool = observation.pool.metadata.name
    revision = revision_hash(template, salt)
    record = records.get(revision_object_name(pool, revision))
    stored = read_revision(record) if record else None
    if record is not None and (stored is None or stored.template != template):
        return True
    return any(
        _set_collides(pool, raw, revision, records, salt) for raw in observation.accelerators
    )


def _set_collides(
    pool: str,
    raw: Mapping[str, object],
    revision: str,
    records: Mapping[str, ObservedRevision],
    salt: int,
) -> bool:
    identity = set_identity(revision, raw)
    record = records.get(set_name(pool, str(raw.get("name")), identity, salt))
    stored = read_set(record) if record else None
    return record is not None and (stored is None or stored.identity != identity)


def outdated_revisions(
    plan: RevisionPlan, in_use: frozenset[str], history_limit: int
) -> tuple[ObservedRevision, ...]:
    """Return the records beyond `history_limit` of revisions that nothing uses, oldest first."""
    idle = [item for item in plan.kept if item.name not in in_use and item.record is not None]
    surplus = idle[: max(0, len(idle) - history_limit)]
    return tuple(item.record for item in surplus if item.record is not None)
