"""Rules between fields of an InferencePool: the Python twin of each CEL rule of its CRD."""

from collections.abc import Callable, Iterator

from tidegate_api import rules
from tidegate_api.pool import AcceleratorClass, InferencePool
from tidegate_api.quantity import duration_s
from tidegate_api.rules import Rule
from tidegate_api.template import ModelOverride
from tidegate_api.templatechecks import (
    DAY_S,
    HOUR_S,
    TEMPLATE_CHECKS,
    TemplateCheck,
    TemplateParts,
    not_positive,
    repeats,
    too_long,
)

PoolCheck = Callable[[InferencePool], Iterator[str]]


def _models(pool: InferencePool) -> Iterator[tuple[str, ModelOverride]]:
    for index, model in enumerate(pool.spec.template.models):
        yield f"spec.template.models[{index}]", model
    for path, accelerator in _classes(pool):
        for index, override in enumerate(accelerator.models or ()):
            yield f"{path}.models[{index}]", override


def _classes(pool: InferencePool) -> Iterator[tuple[str, AcceleratorClass]]:
    for index, accelerator in enumerate(pool.spec.accelerators):
        yield f"spec.accelerators[{index}]", accelerator


def _of_template(check: TemplateCheck) -> PoolCheck:
    def checked(pool: InferencePool) -> Iterator[str]:
        yield from check(TemplateParts(tuple(_models(pool)), pool.spec.template.pod))

    return checked


def _pool_name(pool: InferencePool) -> Iterator[str]:
    if not rules.POOL_NAME_REGEX.match(pool.metadata.name):
        yield "metadata.name"


def _unique_names(pool: InferencePool) -> Iterator[str]:
    lists = {
        "spec.template.models": [model.name for model in pool.spec.template.models],
        "spec.accelerators": [accelerator.name for accelerator in pool.spec.accelerators],
        "spec.routing.tiers": [tier.name for tier in pool.spec.routing.tiers or ()],
    } | {
        f"{path}.models": [override.name for override in accelerator.models or ()]
        for path, accelerator in _classes(pool)
    }
    for path, names in lists.items():
        if repeats(names):
            yield path


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


def _score_weights_count(pool: InferencePool) -> Iterator[str]:
    weights = pool.spec.routing.score_weights
    if not any(weights.model_dump().values()):
        yield "spec.routing.scoreWeights"


def _request_timeout(pool: InferencePool) -> Iterator[str]:
    if not_positive(pool.spec.routing.timeout, DAY_S):
        yield "spec.routing.timeout"


def _max_wait(pool: InferencePool) -> Iterator[str]:
    if too_long(pool.spec.routing.queue.max_wait, HOUR_S):
        yield "spec.routing.queue.maxWait"


def _no_workers_ttl(pool: InferencePool) -> Iterator[str]:
    if too_long(pool.spec.routing.queue.no_workers_ttl, HOUR_S):
        yield "spec.routing.queue.noWorkersTTL"


def _tier_target(pool: InferencePool) -> Iterator[str]:
    for index, tier in enumerate(pool.spec.routing.tiers or ()):
        if not_positive(tier.p99_target, HOUR_S):
            yield f"spec.routing.tiers[{index}].p99Target"


def _per_try_timeout(pool: InferencePool) -> Iterator[str]:
    if not_positive(pool.spec.routing.retry.per_try_timeout, DAY_S):
        yield "spec.routing.retry.perTryTimeout"


def _base_ejection(pool: InferencePool) -> Iterator[str]:
    if not_positive(pool.spec.routing.ejection.base_ejection, HOUR_S):
        yield "spec.routing.ejection.baseEjection"


def _max_ejection(pool: InferencePool) -> Iterator[str]:
    if not_positive(pool.spec.routing.ejection.max_ejection, DAY_S):
        yield "spec.routing.ejection.maxEjection"


def _ejection_ordered(pool: InferencePool) -> Iterator[str]:
    ejection = pool.spec.routing.ejection
    if duration_s(ejection.base_ejection) > duration_s(ejection.max_ejection):
        yield "spec.routing.ejection.baseEjection"


def _drain_timeout(pool: InferencePool) -> Iterator[str]:
    if too_long(pool.spec.drain.timeout, DAY_S):
        yield "spec.drain.timeout"


POOL_CHECKS: tuple[tuple[Rule, PoolCheck], ...] = (
    (rules.POOL_NAME, _pool_name),
    (rules.UNIQUE_NAMES, _unique_names),
    (rules.CLASS_MODEL_KNOWN, _class_model_known),
    (rules.GPU_INSTANCES_NEED_GPU_CLASS, _gpu_instances_need_gpu_class),
    (rules.CLASS_INSTANCES_FIT, _class_instances_fit),
    (rules.REPLICAS_ORDERED, _replicas_ordered),
    (rules.SCORE_WEIGHTS_COUNT, _score_weights_count),
    (rules.REQUEST_TIMEOUT, _request_timeout),
    (rules.PER_TRY_TIMEOUT, _per_try_timeout),
    (rules.BASE_EJECTION, _base_ejection),
    (rules.MAX_EJECTION, _max_ejection),
    (rules.EJECTION_ORDERED, _ejection_ordered),
    (rules.MAX_WAIT, _max_wait),
    (rules.NO_WORKERS_TTL, _no_workers_ttl),
    (rules.TIER_TARGET, _tier_target),
    (rules.DRAIN_TIMEOUT, _drain_timeout),
    *((rule, _of_template(check)) for rule, check in TEMPLATE_CHECKS),
)
