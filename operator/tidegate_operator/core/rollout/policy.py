"""spec of a ModelRollout -> the numbers that its state machine reads."""

from collections.abc import Sequence

from tidegate_api.quantity import duration_s
from tidegate_api.rollout import Analysis, ModelRolloutSpec, Step
from tidegate_operator.core.identity import stable_hash
from tidegate_operator.core.rollout.model import AnalysisPlan, Policy, PrometheusPlan, StepPlan


def resolve(spec: ModelRolloutSpec) -> Policy:
    """Return the policy of a spec that the CRD accepted; durations become seconds."""
    window = spec.rollback_window
    return Policy(
        steps=tuple(map(_step, spec.steps)),
        step_hash=step_hash(spec.steps),
        analysis=_analysis(spec.analysis) if spec.analysis else None,
        surge=spec.surge,
        dynamic_stable_scale=spec.dynamic_stable_scale,
        automatic_rollback=spec.automatic_rollback,
        progress_deadline_s=duration_s(spec.progress_deadline),
        scale_down_delay_s=duration_s(spec.scale_down_delay),
        rollback_window=window.revisions if window else 0,
    )


def step_hash(steps: Sequence[Step]) -> str:
    """Return 8 hex digits over what the steps mean: 60s and 1m are the same."""
    plans = map(_step, steps)
    return stable_hash([[plan.weight, plan.pause_s] for plan in plans])


def _step(step: Step) -> StepPlan:
    if step.set_weight is not None:
        return StepPlan(weight=step.set_weight)
    pause = step.pause
    return StepPlan(pause_s=duration_s(pause.duration) if pause and pause.duration else None)


def _analysis(analysis: Analysis) -> AnalysisPlan:
    latency = analysis.p95_latency
    return AnalysisPlan(
        interval_s=duration_s(analysis.interval),
        min_requests=analysis.min_requests,
        on_no_data=analysis.on_no_data,
        failure_limit=analysis.failure_limit,
        initial_delay_s=duration_s(analysis.initial_delay),
        max_window_s=duration_s(analysis.max_window),
        starting_step=analysis.starting_step,
        dry_run=analysis.dry_run,
        min_success_rate=analysis.success_rate.min if analysis.success_rate else None,
        max_p95_s=duration_s(latency.max) if latency and latency.max else None,
        max_p95_ratio=latency.max_ratio_to_stable if latency else None,
        max_disagreement=analysis.shadow.max_disagreement if analysis.shadow else None,
        prometheus=tuple(
            PrometheusPlan(name=item.name, query=item.query, min=item.min, max=item.max)
            for item in analysis.prometheus
        ),
    )
