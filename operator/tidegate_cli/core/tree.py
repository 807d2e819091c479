"""The tree that `get` draws: rollout, pool, revisions, worker sets, workers."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tidegate_api.names import PLURALS, Kind
from tidegate_api.pool import InferencePool
from tidegate_api.rollout import ModelRollout
from tidegate_cli.core import progress
from tidegate_cli.core.documents import full_name, instant_s, span
from tidegate_cli.core.snapshot import Revision, Snapshot, WorkerSet


class Tone(StrEnum):
    """How a line looks on a terminal."""

    PLAIN = "default"
    GOOD = "green"
    WAITING = "yellow"
    BAD = "red"
    FAINT = "dim"


@dataclass(frozen=True, slots=True)
class Node:
    """A line, and the lines below it."""

    text: str
    tone: Tone = Tone.PLAIN
    children: tuple["Node", ...] = ()


_TONES = {
    "Healthy": Tone.GOOD,
    "Progressing": Tone.WAITING,
    "Paused": Tone.WAITING,
    "Degraded": Tone.BAD,
}


def draw(snapshot: Snapshot) -> Node:
    """Return the whole tree; the rollout is the root where there is one."""
    if snapshot.rollout is None:
        return _pool(snapshot, snapshot.pool)
    below = [*_facts(snapshot, snapshot.rollout), _pool(snapshot, snapshot.pool)]
    return Node(*_rollout(snapshot.rollout), tuple(below))


def headline(snapshot: Snapshot) -> str:
    """Return one line that tells the whole."""
    if snapshot.rollout is not None:
        return progress.summary(snapshot.rollout)
    return _pool(snapshot, snapshot.pool).text


def _rollout(rollout: ModelRollout) -> tuple[str, Tone]:
    name = full_name(PLURALS[Kind.MODEL_ROLLOUT], rollout.metadata.namespace, rollout.metadata.name)
    phase = rollout.status.phase
    parts = [phase or "not seen by an operator yet", progress.step(rollout)]
    parts.append(progress.weight(rollout))
    return f"{name}: {', '.join(filter(None, parts))}", _TONES.get(phase or "", Tone.WAITING)


def _facts(snapshot: Snapshot, rollout: ModelRollout) -> Iterator[Node]:
    if rollout.status.message:
        yield Node(rollout.status.message, _TONES.get(rollout.status.phase or "", Tone.PLAIN))
    left = progress.eta(rollout, snapshot.now_s)
    if left is not None:
        yield Node(f"ETA {left}" if left.left_s > 0 else str(left))
    if rollout.status.canary_revision and rollout.status.surge:
        surge = rollout.status.surge
        words = f": {surge.message}" if surge.message else ""
        yield Node(f"surge {surge.strategy}{words}", Tone.FAINT)
    first, *more = [*progress.analysis(rollout)] or [""]
    if first:
        tones = {"Pass": Tone.GOOD, "Fail": Tone.BAD}
        tone = tones.get(rollout.status.analysis.verdict or "", Tone.WAITING)
        yield Node(f"analysis {first}", tone, tuple(Node(line) for line in more))


def _pool(snapshot: Snapshot, pool: InferencePool | None) -> Node:
    if pool is None:
        asked = snapshot.rollout.spec.pool_ref.name if snapshot.rollout else ""
        return Node(f"{PLURALS[Kind.INFERENCE_POOL]}.tidegate.dev {asked}: not found", Tone.BAD)
    name = full_name(PLURALS[Kind.INFERENCE_POOL], pool.metadata.namespace, pool.metadata.name)
    ready = next((one for one in pool.status.conditions if one.type == "Ready"), None)
    says = f"{'Ready' if ready.status == 'True' else 'not Ready'}, {ready.reason}" if ready else "?"
    counts = f"{pool.status.ready_replicas}/{pool.status.desired_replicas} workers"
    tone = Tone.GOOD if ready and ready.status == "True" else Tone.WAITING
    return Node(f"{name}: {says}, {counts}", tone, tuple(_revisions(snapshot, pool)))


def _revisions(snapshot: Snapshot, pool: InferencePool) -> Iterator[Node]:
    known = {revision.name: revision for revision in snapshot.revisions}
    shown = [name for name in known if _is_live(snapshot, pool, name)]
    alive = {one.revision for one in snapshot.sets} - known.keys()
    for name in [*reversed(shown), *sorted(alive)]:
        yield _revision(snapshot, pool, known.get(name) or Revision(name=name, number=0))


def _is_live(snapshot: Snapshot, pool: InferencePool, name: str) -> bool:
    status = snapshot.rollout.status if snapshot.rollout else None
    named = {pool.status.stable_revision, pool.status.desired_revision}
    if status:
        named |= {status.stable_revision, status.canary_revision, status.aborted_revision}
    return name in named or any(one.revision == name for one in snapshot.sets)


def _revision(snapshot: Snapshot, pool: InferencePool, revision: Revision) -> Node:
    head = f"{revision.name}{_role(snapshot, pool, revision)}"
    published, verified = _weights(snapshot, pool, revision.name)
    share = f"{published} %"
    if verified != published:
        share += f", acknowledged {verified} %"
    parts = [head, f"weight {share}", f"image {revision.image}" if revision.image else ""]
    sets = [_set(one) for one in snapshot.sets if one.revision == revision.name]
    models = [Node(f"model {name} {uri}", Tone.FAINT) for name, uri in revision.models.items()]
    return Node("  ".join(filter(None, parts)), _role_tone(head), (*models, *sets))


def _weights(snapshot: Snapshot, pool: InferencePool, revision: str) -> tuple[int, int]:
    verified = {one.revision: one.weight for one in pool.status.verified_weights}
    published = snapshot.published or {one.revision: one.weight for one in pool.status.weights}
    return published.get(revision, 0), verified.get(revision, 0)


def _role(snapshot: Snapshot, pool: InferencePool, revision: Revision) -> str:
    status = snapshot.rollout.status if snapshot.rollout else None
    stable = (status and status.stable_revision) or pool.status.stable_revision
    roles = [f"number {revision.number}"] if revision.number else []
    if revision.name == stable:
        roles.append("stable")
    if status and revision.name == status.canary_revision:
        roles.append("canary")
    if revision.aborted or (status and revision.name == status.aborted_revision):
        roles.append("aborted")
    if status and revision.name == status.pinned_revision:
        roles.append("pinned")
    return f" ({', '.join(roles)})" if roles else ""


def _role_tone(head: str) -> Tone:
    if "aborted" in head:
        return Tone.BAD
    return Tone.WAITING if "canary" in head else Tone.PLAIN


def _set(one: WorkerSet) -> Node:
    workers = tuple(
        Node(f"{worker.name}  {worker.state}", Tone.GOOD if worker.ready else Tone.WAITING)
        for worker in one.workers
    )
    head = f"{one.name}  class {one.accelerator}  {one.ready}/{one.replicas} ready"
    return Node(head, Tone.GOOD if one.ready >= one.replicas else Tone.WAITING, workers)


LIST_COLUMNS = (
    "namespace", "name", "pool", "phase", "step", "weight", "stable", "canary", "age", "message",
)  # fmt: skip


def list_row(rollout: ModelRollout, now_s: float) -> tuple[str, ...]:
    """Return a rollout as one row of `list`."""
    status, meta = rollout.status, rollout.metadata
    done, count = status.current_step_index, len(rollout.spec.steps)
    made_s = instant_s(meta.creation_timestamp)
    return (
        meta.namespace,
        meta.name,
        rollout.spec.pool_ref.name,
        status.phase or "-",
        f"{min(done, count)}/{count}" if done is not None and count else "-",
        f"{status.verified_weight} %" if status.canary_revision else "-",
        status.stable_revision or "-",
        status.canary_revision or "-",
        span(now_s - made_s) if made_s is not None else "-",
        status.message,
    )
