"""What the API server and the operator would say of documents that no cluster has seen."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tidegate_api import crd
from tidegate_api.merge import merge_template
from tidegate_api.names import API_VERSION, GROUP, PLURALS, Kind, RolloutEventReason
from tidegate_api.pool import InferencePool
from tidegate_api.quantity import duration_s
from tidegate_api.rollout import Analysis, ModelRollout, Step
from tidegate_api.validation import (
    InvalidObjectError,
    parse_pool,
    parse_rollout,
    problems_of_merged,
)
from tidegate_cli.core.documents import Json, field, full_name, mapping, text
from tidegate_cli.errors import InputError

_PARSERS: Mapping[Kind, Callable[[Json], InferencePool | ModelRollout]] = {
    Kind.INFERENCE_POOL: parse_pool,
    Kind.MODEL_ROLLOUT: parse_rollout,
}


class Level(StrEnum):
    """Error: refused, or InvalidSpec. Warning: accepted, and not what was meant."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Source:
    """A document and where it stands ("pools.yaml, document 2")."""

    place: str
    document: Json

    @property
    def kind(self) -> str:
        """The document's kind."""
        return text(self.document, "kind")

    @property
    def name(self) -> str:
        """The object's full name; kubectl's namespace is the default one here."""
        meta = mapping(self.document, "metadata")
        plural = PLURALS[Kind(self.kind)]
        namespace = text(meta, "namespace") or "default"
        return full_name(plural, namespace, text(meta, "name") or "without a name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    level: Level
    place: str
    name: str
    message: str  # begins with the field

    def __str__(self) -> str:
        return f"{self.place}: {self.level}: {self.name}: {self.message}"


def is_ours(document: Json) -> bool:
    """Tell whether a document is a pool or a rollout, of whatever version."""
    group, _, _ = text(document, "apiVersion").partition("/")
    return group == GROUP and text(document, "kind") in set(_PARSERS)


def lint(sources: Sequence[Source], rate: float | None) -> Iterator[Finding]:
    """Yield every finding; `rate`: the pool's requests per second, None: unknown."""
    valid: list[Source] = []
    for source in sources:
        found = [*_of_one(source)]
        yield from found
        if not found:
            valid.append(source)
    pools = {source.name: source for source in valid if source.kind == Kind.INFERENCE_POOL}
    asked = {source.name for source in sources if source.kind == Kind.INFERENCE_POOL}
    rollouts = [source for source in valid if source.kind == Kind.MODEL_ROLLOUT]
    for source in rollouts:
        rollout = parse_rollout(source.document)
        pool = _pool_name(rollout)
        if pool in pools:
            yield from _merged(source, pools[pool])
        elif pool not in asked:
            message = f"spec.poolRef: {pool} is not among the files, so the merge is unchecked"
            yield _finding(Level.WARNING, source, message)
        yield from _warnings(source, rollout, rate)
    yield from _rivals(rollouts)


def only_rollout(place: str, sources: Sequence[Source]) -> ModelRollout:
    """Return the one ModelRollout among documents; InputError says what is wrong with it."""
    found = [one for one in sources if is_ours(one.document) and one.kind == Kind.MODEL_ROLLOUT]
    if len(found) != 1:
        raise InputError(f"{place}: expected one ModelRollout, found {len(found)}")
    try:
        return parse_rollout(found[0].document)
    except InvalidObjectError as error:
        raise InputError(f"{place}: {error}") from None


def _finding(level: Level, source: Source, message: str) -> Finding:
    return Finding(level=level, place=source.place, name=source.name, message=message)


def _of_one(source: Source) -> Iterator[Finding]:
    document = source.document
    if text(document, "apiVersion") != API_VERSION:
        yield _finding(Level.ERROR, source, f"apiVersion: expected {API_VERSION}")
    try:
        _PARSERS[Kind(source.kind)](document)
    except InvalidObjectError as error:
        for problem in error.problems:
            yield _finding(Level.ERROR, source, str(problem))
    for path in _unknown(field(document, "spec"), _schema(Kind(source.kind)), "spec"):
        yield _finding(Level.ERROR, source, f"{path}: no such field")


def _schema(kind: Kind) -> Json:
    definition = crd.documents()[f"{GROUP}_{PLURALS[kind]}.yaml"]
    versions = field(definition, "spec", "versions")
    version = versions[0] if isinstance(versions, list) else {}
    return mapping(version, "schema", "openAPIV3Schema", "properties", "spec")


def _unknown(value: object, schema: Json, path: str) -> Iterator[str]:
    """Yield the path of each field that the CRD does not declare: kubectl apply refuses it."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, mapping(schema, "items"), f"{path}[{index}]")
    if not isinstance(value, Mapping) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    known, free = mapping(schema, "properties"), field(schema, "additionalProperties")
    for name, part in value.items():
        if name in known:
            yield from _unknown(part, mapping(known, name), f"{path}.{name}")
        elif isinstance(free, Mapping):
            yield from _unknown(part, free, f"{path}.{name}")
        elif known and not free:
            yield f"{path}.{name}"


def _pool_name(rollout: ModelRollout) -> str:
    namespace = rollout.metadata.namespace or "default"
    return full_name(PLURALS[Kind.INFERENCE_POOL], namespace, rollout.spec.pool_ref.name)


def _merged(source: Source, pool: Source) -> Iterator[Finding]:
    own, change = (mapping(one.document, "spec", "template") for one in (pool, source))
    merged, unknown = merge_template(own, change)
    for problem in unknown:
        yield _finding(Level.ERROR, source, str(problem))
    for problem in problems_of_merged(pool.document, merged) if not unknown else ():
        yield _finding(Level.ERROR, source, f"merged over {pool.name}: {problem}")


def _rivals(rollouts: Sequence[Source]) -> Iterator[Finding]:
    first: dict[str, Source] = {}
    for source in rollouts:
        pool = _pool_name(parse_rollout(source.document))
        if pool in first:
            message = f"spec.poolRef: {first[pool].name} is for {pool} too; the older one counts"
            yield _finding(Level.WARNING, source, message)
        first.setdefault(pool, source)


def _warnings(source: Source, rollout: ModelRollout, rate: float | None) -> Iterator[Finding]:
    spec = rollout.spec
    if spec.steps and spec.analysis is None:
        message = "spec.analysis: absent, so steps go by time alone and nothing rolls back"
        yield _finding(Level.WARNING, source, message)
    if rate is None or spec.analysis is None or spec.analysis.on_no_data == "Pass":
        return
    for short in too_short(spec.steps, spec.analysis, rate):
        reason = RolloutEventReason.STEP_TOO_SHORT_FOR_TRAFFIC
        yield _finding(Level.WARNING, source, f"{short} ({reason})")


def too_short(steps: Sequence[Step], analysis: Analysis, rate: float) -> Iterator[str]:
    """Yield words for each step whose window cannot gather minRequests from `rate` requests/s.

    Both tracks need minRequests. A pause is a step of its own; a weight that a pause follows is
    not judged before it.
    """
    share = 0
    for index, step in enumerate(steps):
        share = step.set_weight if step.set_weight is not None else share
        paused_next = index + 1 < len(steps) and steps[index + 1].pause is not None
        unjudged = step.pause is None and paused_next
        if not share or index < analysis.starting_step or unjudged:
            continue
        lasts_s = _lasts_s(steps, index, analysis)
        smaller = min(share, 100 - share) or share
        expected = rate * smaller / 100 * lasts_s
        if expected < analysis.min_requests:
            yield (
                f"spec.steps[{index}]: at {rate:g} requests/s, {smaller} % of them in"
                f" {lasts_s:g} s are {expected:.0f}, and analysis.minRequests is"
                f" {analysis.min_requests}: a longer pause, a larger weight or fewer minRequests"
            )


def _lasts_s(steps: Sequence[Step], index: int, analysis: Analysis) -> float:
    """Return how long a step's window may wait for data: its pause, at most maxWindow."""
    most_s = duration_s(analysis.max_window)
    pause = steps[index].pause
    if pause is None or pause.duration is None:
        return most_s
    weighed = index > 0 and steps[index - 1].set_weight is not None
    delay_s = duration_s(analysis.initial_delay) if weighed else 0.0
    return min(most_s, max(0.0, duration_s(pause.duration) - delay_s))
