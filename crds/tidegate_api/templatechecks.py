"""Rules of what a worker runs: the Python twins for the templates of pools and rollouts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tidegate_api import rules
from tidegate_api.quantity import duration_s
from tidegate_api.rules import Rule
from tidegate_api.template import (
    Duration,
    ModelBehavior,
    ModelOverride,
    PodSettings,
    PodVolume,
    ResponseCache,
    WarmupInput,
)

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True)
class TemplateParts:
    """The models of an object with their paths, and its pod settings."""

    models: Sequence[tuple[str, ModelOverride]]
    pod: PodSettings | None


TemplateCheck = Callable[[TemplateParts], Iterator[str]]


def too_long(text: Duration | None, most_s: float) -> bool:
    """Tell whether a duration is given and above `most_s`."""
    return text is not None and duration_s(text) > most_s


def not_positive(text: Duration | None, most_s: float) -> bool:
    """Tell whether a duration is given and not within (0, most_s]."""
    return text is not None and not 0 < duration_s(text) <= most_s


def repeats(names: Sequence[str]) -> bool:
    """Tell whether a name occurs twice."""
    return len(names) != len(set(names))


def _batch_sizes_fit(parts: TemplateParts) -> Iterator[str]:
    for path, model in parts.models:
        preferred = (model.dynamic_batching and model.dynamic_batching.preferred_batch_sizes) or ()
        if model.max_batch_size is not None and any(s > model.max_batch_size for s in preferred):
            yield f"{path}.dynamicBatching.preferredBatchSizes"


def _batching_needs_batch_size(parts: TemplateParts) -> Iterator[str]:
    for path, model in parts.models:
        if model.dynamic_batching is not None and model.max_batch_size == 0:
            yield f"{path}.maxBatchSize"


def _warmup_inputs(parts: TemplateParts) -> Iterator[tuple[str, WarmupInput]]:
    for path, model in parts.models:
        for index, warmup in enumerate(model.warmup or ()):
            for name, tensor in warmup.inputs.items():
                yield f"{path}.warmup[{index}].inputs.{name}", tensor


def _fill_file(parts: TemplateParts) -> Iterator[str]:
    for path, tensor in _warmup_inputs(parts):
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


def _one_volume_kind(parts: TemplateParts) -> Iterator[str]:
    for index, volume in enumerate((parts.pod and parts.pod.volumes) or ()):
        if _kinds(volume) != 1:
            yield f"spec.template.pod.volumes[{index}]"


def _unique_volumes(parts: TemplateParts) -> Iterator[str]:
    if repeats([volume.name for volume in (parts.pod and parts.pod.volumes) or ()]):
        yield "spec.template.pod.volumes"


def _queue_delay(parts: TemplateParts) -> Iterator[str]:
    for path, model in parts.models:
        batching = model.dynamic_batching
        if batching and too_long(batching.max_queue_delay, HOUR_S):
            yield f"{path}.dynamicBatching.maxQueueDelay"


def _queue_timeout(parts: TemplateParts) -> Iterator[str]:
    for path, model in parts.models:
        queue = model.dynamic_batching and model.dynamic_batching.queue
        if queue and too_long(queue.timeout, HOUR_S):
            yield f"{path}.dynamicBatching.queue.timeout"


def _response_caches(parts: TemplateParts) -> Iterator[tuple[str, ModelBehavior, ResponseCache]]:
    for path, model in parts.models:
        if isinstance(model, ModelBehavior) and model.response_cache is not None:
            yield f"{path}.responseCache", model, model.response_cache


def _response_cache_ttl(parts: TemplateParts) -> Iterator[str]:
    for path, _, cache in _response_caches(parts):
        if not_positive(cache.ttl, DAY_S):
            yield f"{path}.ttl"


def _cache_needs_idempotent(parts: TemplateParts) -> Iterator[str]:
    for path, model, _ in _response_caches(parts):
        if model.idempotent is False:
            yield path


def _refused_config(field: str) -> TemplateCheck:
    def check(parts: TemplateParts) -> Iterator[str]:
        for path, model in parts.models:
            if field in (model.config or {}):
                yield f"{path}.config.{field}"

    return check


TEMPLATE_CHECKS: tuple[tuple[Rule, TemplateCheck], ...] = (
    (rules.BATCH_SIZES_FIT, _batch_sizes_fit),
    (rules.BATCHING_NEEDS_BATCH_SIZE, _batching_needs_batch_size),
    (rules.FILL_FILE, _fill_file),
    (rules.ONE_VOLUME_KIND, _one_volume_kind),
    (rules.UNIQUE_NAMES, _unique_volumes),
    (rules.QUEUE_DELAY, _queue_delay),
    (rules.QUEUE_TIMEOUT, _queue_timeout),
    (rules.RESPONSE_CACHE_TTL, _response_cache_ttl),
    (rules.CACHE_NEEDS_IDEMPOTENT, _cache_needs_idempotent),
    *((rules.config_rule(field), _refused_config(field)) for field in rules.TYPED_ELSEWHERE),
)
