"""Rules between fields of a ModelRollout: the Python twin of each CEL rule of its CRD.

That poolRef never changes compares two versions of an object: only the API server can tell.
"""

from collections.abc import Callable, Iterator

from tidegate_api import rules
from tidegate_api.quantity import duration_s
from tidegate_api.rollout import ModelRollout
from tidegate_api.rules import Rule
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

RolloutCheck = Callable[[ModelRollout], Iterator[str]]


def _of_template(check: TemplateCheck) -> RolloutCheck:
    def checked(rollout: ModelRollout) -> Iterator[str]:
        template = rollout.spec.template
        models = enumerate(template.models or ())
        named = tuple((f"spec.template.models[{index}]", model) for index, model in models)
        yield from check(TemplateParts(named, template.pod))

    return checked


def _unique_names(rollout: ModelRollout) -> Iterator[str]:
    analysis = rollout.spec.analysis
    lists = {
        "spec.template.models": [model.name for model in rollout.spec.template.models or ()],
        "spec.analysis.prometheus": [one.name for one in (analysis and analysis.prometheus) or ()],
    }
    for path, names in lists.items():
        if repeats(names):
            yield path


def _one_step_kind(rollout: ModelRollout) -> Iterator[str]:
    for index, step in enumerate(rollout.spec.steps):
        if (step.set_weight is None) == (step.pause is None):
            yield f"spec.steps[{index}]"


def _steps_rise(rollout: ModelRollout) -> Iterator[str]:
    weights = [step.set_weight for step in rollout.spec.steps if step.set_weight is not None]
    if weights != sorted(weights):
        yield "spec.steps"


def _shadow_needs_mirror(rollout: ModelRollout) -> Iterator[str]:
    spec = rollout.spec
    if spec.analysis and spec.analysis.shadow and not (spec.mirror and spec.mirror.percent):
        yield "spec.analysis.shadow"


def _latency_limit(rollout: ModelRollout) -> Iterator[str]:
    latency = rollout.spec.analysis and rollout.spec.analysis.p95_latency
    if latency and latency.max is None and latency.max_ratio_to_stable is None:
        yield "spec.analysis.p95Latency"


def _prometheus_bound(rollout: ModelRollout) -> Iterator[str]:
    analysis = rollout.spec.analysis
    for index, check in enumerate((analysis and analysis.prometheus) or ()):
        if check.min is None and check.max is None:
            yield f"spec.analysis.prometheus[{index}]"


def _analysis_interval(rollout: ModelRollout) -> Iterator[str]:
    analysis = rollout.spec.analysis
    if analysis and not 1 <= duration_s(analysis.interval) <= HOUR_S:
        yield "spec.analysis.interval"


def _initial_delay(rollout: ModelRollout) -> Iterator[str]:
    analysis = rollout.spec.analysis
    if analysis and too_long(analysis.initial_delay, DAY_S):
        yield "spec.analysis.initialDelay"


def _max_window(rollout: ModelRollout) -> Iterator[str]:
    analysis = rollout.spec.analysis
    if analysis and not_positive(analysis.max_window, DAY_S):
        yield "spec.analysis.maxWindow"


def _progress_deadline(rollout: ModelRollout) -> Iterator[str]:
    if not_positive(rollout.spec.progress_deadline, 7 * DAY_S):
        yield "spec.progressDeadline"


def _scale_down_delay(rollout: ModelRollout) -> Iterator[str]:
    if too_long(rollout.spec.scale_down_delay, DAY_S):
        yield "spec.scaleDownDelay"


ROLLOUT_CHECKS: tuple[tuple[Rule, RolloutCheck], ...] = (
    (rules.UNIQUE_NAMES, _unique_names),
    (rules.ONE_STEP_KIND, _one_step_kind),
    (rules.STEPS_RISE, _steps_rise),
    (rules.SHADOW_NEEDS_MIRROR, _shadow_needs_mirror),
    (rules.LATENCY_LIMIT, _latency_limit),
    (rules.PROMETHEUS_BOUND, _prometheus_bound),
    (rules.ANALYSIS_INTERVAL, _analysis_interval),
    (rules.ANALYSIS_INITIAL_DELAY, _initial_delay),
    (rules.ANALYSIS_MAX_WINDOW, _max_window),
    (rules.PROGRESS_DEADLINE, _progress_deadline),
    (rules.SCALE_DOWN_DELAY, _scale_down_delay),
    *((rule, _of_template(check)) for rule, check in TEMPLATE_CHECKS),
)
