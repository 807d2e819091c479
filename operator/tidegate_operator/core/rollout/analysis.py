"""Analysis of a canary: windows over the routers' counts, judged at each interval's end.

Source: operator.md section 5, router.md section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidegate_api.rollout import CheckResult, WindowStatus
from tidegate_api.routetable import Guard
from tidegate_operator.core.observation import QueryResult, RouterMember
from tidegate_operator.core.rollout.checks import Evidence, overall, run_checks, summary
from tidegate_operator.core.rollout.model import AnalysisPlan, Assessment
from tidegate_operator.core.rollout.readings import Ledger, Source, Totals, count, unreadable
from tidegate_operator.core.rollout.windows import (
    MOST_WINDOWS,
    AnalysisMemory,
    OpenWindow,
    Reached,
    Step,
    close,
    has_passed,
    of_step,
    show,
    stored,
)

_EVERYTHING = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisContext:
    """What analysis looks at in one decision. Times are epoch seconds of the operator's clock.

    `canary` None: no canary is being tried now. `goal` is the weight of the present step; below
    it a window may fail but not pass.
    """

    now_s: float
    pool_uid: str
    stable: str | None
    canary: str | None
    step_index: int = 0
    step_since_s: float = 0.0
    goal: int = 0
    verified: int = 0  # the canary's weight that every live router acknowledged last
    routers: Sequence[RouterMember] = ()
    queries: Mapping[str, QueryResult] = field(default_factory=dict)  # by PromQL
    stored: Sequence[WindowStatus] = ()  # status.analysis.windows


def assess(
    plan: AnalysisPlan, context: AnalysisContext, memory: AnalysisMemory
) -> tuple[Assessment, AnalysisMemory]:
    """Return what analysis says now, and what it must remember.

    A failing window is closed and counts once as bad; its data is left out of what the step's
    later windows add up, so that one bad window that failureLimit tolerates is one.
    """
    memory = _remember(context, memory)
    if context.canary is None or context.stable is None:
        memory = replace(memory, step=Step(), reached=None, ledger=None, window=None, base=None)
        return _idle(context, memory), memory
    memory = _window(plan, context, _advance(context, memory))
    window = memory.window
    if window is None or context.now_s < window.next_s:
        return _idle(context, memory), memory
    return _at_interval(plan, context, memory, window)


def _remember(context: AnalysisContext, memory: AnalysisMemory) -> AnalysisMemory:
    """After a restart closed windows are status's."""
    if memory.closed is not None:
        return memory
    return replace(memory, closed=stored(context.stored))


def _advance(context: AnalysisContext, memory: AnalysisMemory) -> AnalysisMemory:
    """Count what routers report, and begin anew with another step or canary."""
    step = Step(
        stable=context.stable or "",
        canary=context.canary or "",
        index=context.step_index,
        since_s=context.step_since_s,
    )
    before = memory.step
    if (step.stable, step.canary) != (before.stable, before.canary):
        memory = AnalysisMemory(step=step, closed=memory.closed)
    elif step != before:
        memory = replace(memory, step=step, window=None, base=None, verdict=None, message="")
    source = Source(
        routers=context.routers,
        pool_uid=context.pool_uid,
        stable=step.stable,
        canary=step.canary,
    )
    ledger = memory.ledger or Ledger(began_s=context.now_s)
    return _reach(context, replace(memory, ledger=count(ledger, source, context.now_s)))


def _reach(context: AnalysisContext, memory: AnalysisMemory) -> AnalysisMemory:
    """A weight that rose begins windows anew; one that fell with its workers does not."""
    reached, verified = memory.reached, context.verified
    if reached is not None and (verified == reached.weight or 0 < verified < reached.weight):
        return memory
    risen = Reached(context.verified, context.now_s)
    return replace(memory, reached=risen, window=None, base=None)


def _window(plan: AnalysisPlan, context: AnalysisContext, memory: AnalysisMemory) -> AnalysisMemory:
    """Open a window where one is due."""
    reached, ledger = memory.reached, memory.ledger
    if reached is None or ledger is None or memory.window is not None:
        return memory
    judged = context.verified > 0 or (context.goal == 0 and plan.max_disagreement is not None)
    too_early = context.now_s < reached.since_s + plan.initial_delay_s
    if not judged or too_early or context.step_index < plan.starting_step:
        return memory
    base = memory.base if memory.base is not None else ledger.totals
    return replace(memory, base=base, window=_opened(plan, context, ledger.totals))


def _opened(plan: AnalysisPlan, context: AnalysisContext, totals: Totals) -> OpenWindow:
    return OpenWindow(opened_s=context.now_s, next_s=context.now_s + plan.interval_s, base=totals)


def _at_interval(
    plan: AnalysisPlan, context: AnalysisContext, memory: AnalysisMemory, window: OpenWindow
) -> tuple[Assessment, AnalysisMemory]:
    """Judge, close what is decided, and open the next window."""
    found = _judge(plan, context, memory, window)
    memory = replace(memory, window=found, verdict=found.verdict, message=found.message)
    is_old = context.now_s >= window.opened_s + plan.max_window_s
    if found.verdict != "Inconclusive" or is_old:
        memory = _closed(plan, context, memory, found)
    bad = found.verdict == "Fail"
    return replace(_idle(context, memory), judged=True, bad=bad, checks=found.checks), memory


def _judge(
    plan: AnalysisPlan, context: AnalysisContext, memory: AnalysisMemory, window: OpenWindow
) -> OpenWindow:
    totals = memory.ledger.totals if memory.ledger else Totals()
    evidence = Evidence(
        now_s=context.now_s,
        stable=context.stable or "",
        canary=context.canary or "",
        weight=context.verified,
        window=totals.since(window.base),
        step=totals.since(memory.base or Totals()),
        queries=context.queries,
        unreadable=unreadable(context.routers),
    )
    checks = run_checks(plan, evidence)
    lack = _lack(plan, context, evidence)
    passed_intervals = int((context.now_s - window.opened_s) / plan.interval_s) + 1
    return replace(
        window,
        next_s=window.opened_s + passed_intervals * plan.interval_s,
        verdict=overall(checks, lack),
        checks=checks,
        message=summary(checks, lack),
    )


def _lack(plan: AnalysisPlan, context: AnalysisContext, evidence: Evidence) -> str:
    """What keeps the window from passing although nothing fails."""
    if context.verified < context.goal:
        return f"the step's weight of {context.goal} % is not yet verified"
    least, weight = plan.min_requests, context.verified
    canary = evidence.window.all_of(evidence.canary).judged
    stable = evidence.window.all_of(evidence.stable).judged
    lacking = [
        f"{name} has {number}"
        for name, number, counts in (
            ("canary", canary, weight > 0),
            ("stable", stable, 0 < weight < _EVERYTHING),
        )
        if counts and number < least
    ]
    return f"waiting for {least} requests: {', '.join(lacking)}" if lacking else ""


def _closed(
    plan: AnalysisPlan, context: AnalysisContext, memory: AnalysisMemory, window: OpenWindow
) -> AnalysisMemory:
    totals = memory.ledger.totals if memory.ledger else Totals()
    done = close(window, memory.step.index, context.now_s)
    return replace(
        memory,
        closed=(*(memory.closed or ()), done)[-MOST_WINDOWS:],
        window=_opened(plan, context, totals),
        base=totals if window.verdict == "Fail" else memory.base,
    )


def _idle(context: AnalysisContext, memory: AnalysisMemory) -> Assessment:
    """What holds between two judgements."""
    mine = of_step(memory.closed or (), memory.step) if context.canary else []
    passed, window = has_passed(mine), memory.window
    timed_out = bool(mine) and mine[-1].verdict == "Inconclusive"
    return Assessment(
        verdict=memory.verdict,
        passed=passed,
        data_missing=not passed and timed_out,
        message=memory.message,
        checks=_checks(memory),
        windows=show(memory.closed or (), window, memory.step.index),
    )


def _checks(memory: AnalysisMemory) -> tuple[CheckResult, ...]:
    if memory.window is not None and memory.window.checks:
        return memory.window.checks
    return tuple(memory.closed[-1].checks) if memory.closed else ()


def guard(plan: AnalysisPlan, revision: str) -> Guard:
    """Return what a router may drop this canary for while nobody can tell it anything."""
    return Guard(
        revision=revision,
        min_requests=plan.min_requests,
        interval_s=plan.interval_s,
        min_success_rate=plan.min_success_rate,
        max_p95_s=plan.max_p95_s,
    )


def step_too_short(
    requests_per_second: float, weight: int, step_s: float, min_requests: int
) -> bool:
    """Whether a step of this length cannot bring minRequests to the canary at this rate."""
    return requests_per_second * weight / _EVERYTHING * step_s < min_requests
