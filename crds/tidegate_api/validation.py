"""An InferencePool document -> the model, or every problem with its field.

The API server has checked an object already; this serves objects that no server saw (`tidegate
lint`, a rollout's merged template) and an operator that is newer than the CRD. Errors:

    ValueError
        InvalidPoolError    the object's name and one problem per field
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tidegate_api import rules
from tidegate_api.names import GROUP, PLURALS, Kind
from tidegate_api.pool import AcceleratorClass, InferencePool
from tidegate_api.quantity import duration_s
from tidegate_api.rules import Rule
from tidegate_api.template import Duration, ModelOverride, PodVolume, WarmupInput


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field; `field` is a path from the object's root."""

    field: str
    expectation: str

    def __str__(self) -> str:
        return f"{self.field}: {self.expectation}"


class InvalidPoolError(ValueError):
    """An object that is no valid InferencePool."""

    def __init__(self, name: str, problems: tuple[Problem, ...]) -> None:
        self.name = name
        self.problems = problems
        super().__init__(f"{name}: {'; '.join(map(str, problems))}")


def parse_pool(document: Mapping[str, object]) -> InferencePool:
    """Return the pool, or raise InvalidPoolError with all problems. No value is ever quoted:
    an environment variable of the template may be a credential.
    """
    try:
        pool = InferencePool.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        problems = tuple(map(_problem, details))
        raise InvalidPoolError(_name(document), problems) from None
    broken = tuple(broken_rules(pool))
    if broken:
        raise InvalidPoolError(_name(document), broken)
    return pool


def broken_rules(pool: InferencePool) -> Iterator[Problem]:
    """Yield a problem for each place where a rule between fields is broken."""
    for rule, check in CHECKS:
        for field in check(pool):
            yield Problem(field, rule.message)


def _problem(details: ErrorDetails) -> Problem:
    return Problem(_path(details["loc"]), details["msg"])


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _name(document: Mapping[str, object]) -> str:
    metadata = document.get("metadata")
    fields = metadata if isinstance(metadata, Mapping) else {}
    name = "/".join(str(fields[key]) for key in ("namespace", "name") if fields.get(key))
    return f"{PLURALS[Kind.INFERENCE_POOL]}.{GROUP} {name or 'without a name'}"


Check = Callable[[InferencePool], Iterator[str]]


def _models(pool: InferencePool) -> Iterator[tuple[str, ModelOverride]]:
    for index, model in enumerate(pool.spec.template.models):
        yield f"spec.template.models[{index}]", model
    for path, accelerator in _classes(pool):
        for index, override in enumerate(accelerator.models or ()):
            yield f"{path}.models[{index}]", override


def _classes(pool: InferencePool) -> Iterator[tuple[str, AcceleratorClass]]:
    for index, accelerator in enumerate(pool.spec.accelerators):
        yield f"spec.accelerators[{index}]", accelerator


def _pool_name(pool: InferencePool) -> Iterator[str]:
    if not rules.POOL_NAME_REGEX.match(pool.metadata.name):
        yield "metadata.name"


def _class_model_known(pool: InferencePool) -> Iterator[str]:
    known = {model.name for model in pool.spec.template.models}
    for path, accelerator in _classes(pool):
        for index, override in enumerate(accelerator.models or ()):
            if override.name not in known:
                yield f"{path}.models[{index}].name"


def _wants_gpu(model: ModelOverride) -> bool:
    return any(group.kind == "GPU" for group in model.instances or ())


def _gpu_instances_need_gpu_class(pool: InferencePool) -> Iterator[str]:
    for path, accelerator in _classes(pool):
        overridden = {o.name for o in accelerator.models or () if o.instances is not None}
        wanting = {model.name for model in pool.spec.template.models if _wants_gpu(model)}
        if accelerator.kind != "GPU" and wanting - overridden:
            yield path


def _class_instances_fit(pool: InferencePool) -> Iterator[str]:
    for path, accelerator in _classes(pool):
        for index, override in enumerate(accelerator.models or ()):
            if accelerator.kind != "GPU" and _wants_gpu(override):
                yield f"{path}.models[{index}].instances"


def _replicas_ordered(pool: InferencePool) -> Iterator[str]:
    for path, accelerator in _classes(pool):
        bounds = accelerator.replicas
        if bounds and bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
            yield f"{path}.replicas.min"


def _batch_sizes_fit(pool: InferencePool) -> Iterator[str]:
    for path, model in _models(pool):
        preferred = (model.dynamic_batching and model.dynamic_batching.preferred_batch_sizes) or ()
        if model.max_batch_size is not None and any(s > model.max_batch_size for s in preferred):
            yield f"{path}.dynamicBatching.preferredBatchSizes"


def _batching_needs_batch_size(pool: InferencePool) -> Iterator[str]:
    for path, model in _models(pool):
        if model.dynamic_batching is not None and model.max_batch_size == 0:
            yield f"{path}.maxBatchSize"


def _warmup_inputs(pool: InferencePool) -> Iterator[tuple[str, WarmupInput]]:
    for path, model in _models(pool):
        for index, warmup in enumerate(model.warmup or ()):
            for name, tensor in warmup.inputs.items():
                yield f"{path}.warmup[{index}].inputs.{name}", tensor


def _fill_file(pool: InferencePool) -> Iterator[str]:
    for path, tensor in _warmup_inputs(pool):
        if (tensor.fill == "File") != (tensor.file is not None):
            yield f"{path}.file"


def _kinds(volume: PodVolume) -> int:
    kinds = (
        volume.persistent_volume_claim,
        volume.config_map,
        volume.secret,
        volume.empty_dir,
        volume.csi,
    )
    return sum(kind is not None for kind in kinds)


def _one_volume_kind(pool: InferencePool) -> Iterator[str]:
    pod = pool.spec.template.pod
    for index, volume in enumerate((pod and pod.volumes) or ()):
        if _kinds(volume) != 1:
            yield f"spec.template.pod.volumes[{index}]"


def _refused_config(field: str) -> Check:
    def check(pool: InferencePool) -> Iterator[str]:
        for path, model in _models(pool):
            if field in (model.config or {}):
                yield f"{path}.config.{field}"

    return check


def _score_weights_count(pool: InferencePool) -> Iterator[str]:
    weights = pool.spec.routing.score_weights
    if not any(weights.model_dump().values()):
        yield "spec.routing.scoreWeights"


_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S


def _too_long(text: Duration | None, most_s: float) -> bool:
    return text is not None and duration_s(text) > most_s


def _not_positive(text: Duration | None, most_s: float) -> bool:
    return text is not None and not 0 < duration_s(text) <= most_s


def _queue_delay(pool: InferencePool) -> Iterator[str]:
    for path, model in _models(pool):
        batching = model.dynamic_batching
        if batching and _too_long(batching.max_queue_delay, _HOUR_S):
            yield f"{path}.dynamicBatching.maxQueueDelay"


def _queue_timeout(pool: InferencePool) -> Iterator[str]:
    for path, model in _models(pool):
        queue = model.dynamic_batching and model.dynamic_batching.queue
        if queue and _too_long(queue.timeout, _HOUR_S):
            yield f"{path}.dynamicBatching.queue.timeout"


def _request_timeout(pool: InferencePool) -> Iterator[str]:
    if _not_positive(pool.spec.routing.timeout, _DAY_S):
        yield "spec.routing.timeout"


def _per_try_timeout(pool: InferencePool) -> Iterator[str]:
    if _not_positive(pool.spec.routing.retry.per_try_timeout, _DAY_S):
        yield "spec.routing.retry.perTryTimeout"


def _drain_timeout(pool: InferencePool) -> Iterator[str]:
    if _too_long(pool.spec.drain.timeout, _DAY_S):
        yield "spec.drain.timeout"


def _unique_names(pool: InferencePool) -> Iterator[str]:
    pod = pool.spec.template.pod
    lists = {
        "spec.template.models": [model.name for model in pool.spec.template.models],
        "spec.accelerators": [accelerator.name for accelerator in pool.spec.accelerators],
        "spec.template.pod.volumes": [v.name for v in (pod and pod.volumes) or ()],
    } | {
        f"{path}.models": [override.name for override in accelerator.models or ()]
        for path, accelerator in _classes(pool)
    }
    for path, names in lists.items():
        if len(names) != len(set(names)):
            yield path


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (rules.POOL_NAME, _pool_name),
    (rules.UNIQUE_NAMES, _unique_names),
    (rules.CLASS_MODEL_KNOWN, _class_model_known),
    (rules.GPU_INSTANCES_NEED_GPU_CLASS, _gpu_instances_need_gpu_class),
    (rules.CLASS_INSTANCES_FIT, _class_instances_fit),
    (rules.REPLICAS_ORDERED, _replicas_ordered),
    (rules.BATCH_SIZES_FIT, _batch_sizes_fit),
    (rules.BATCHING_NEEDS_BATCH_SIZE, _batching_needs_batch_size),
    (rules.FILL_FILE, _fill_file),
    (rules.ONE_VOLUME_KIND, _one_volume_kind),
    (rules.SCORE_WEIGHTS_COUNT, _score_weights_count),
    (rules.QUEUE_DELAY, _queue_delay),
    (rules.QUEUE_TIMEOUT, _queue_timeout),
    (rules.REQUEST_TIMEOUT, _request_timeout),
    (rules.PER_TRY_TIMEOUT, _per_try_timeout),
    (rules.DRAIN_TIMEOUT, _drain_timeout),
    *((rules.config_rule(field), _refused_config(field)) for field in rules.TYPED_ELSEWHERE),
)
