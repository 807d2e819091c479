"""What each check makes of the routers' counts, and how counts of several routers add up."""

import math
from dataclasses import replace

import pytest

from tidegate_operator.core.observation import QueryResult
from tidegate_operator.core.rollout.analysis import assess, guard, step_too_short
from tidegate_operator.core.rollout.model import AnalysisPlan, PrometheusPlan

T0 = 1_800_000_000.0
STABLE, CANARY = "stable", "canary"


def names(said, verdict):
    return {check.name for check in said.checks if check.verdict == verdict}


def test_a_missed_scrape_loses_nothing(run):
    run.good(100, 100)
    members = run.context.routers
    run.good(100, 100)
    run.context = replace(run.context, now_s=T0 + 20, routers=members)
    said, run.memory = assess(run.plan, run.context, run.memory)
    assert not said.passed
    assert run.at(30).passed


def test_a_router_that_is_gone_keeps_what_it_counted(new_run, new_router):
    run = new_run(new_router("r0", "r0/1"), new_router("r1", "r1/1")).to_open_window()
    run.routers[1].add(CANARY, ok=200)
    run.routers[1].add(STABLE, ok=600)
    run.at(15)
    del run.routers[1]
    assert run.at(20).passed


def test_a_restarted_router_counts_on_from_its_first_reading(run):
    run.good()
    run.at(15)
    run.router.instance, run.router.series = "r0/2", {}
    run.router.add(CANARY, failed=3)
    run.at(16)
    run.good(50, 50)
    said = run.at(20)
    (check,) = [item for item in said.checks if item.name == "successRate"]
    assert (check.requests, check.bad) == (250, 0)


def test_an_endpoint_that_came_after_the_window_counts_from_zero(new_router, run):
    late = new_router("r9", "r9/1", seen_s=T0 + 12)
    late.add(CANARY, ok=90, failed=10)
    run.routers.append(late)
    assert run.at(20).bad


def test_an_old_endpoint_that_is_first_heard_now_brings_no_history(new_router, run):
    old = new_router("r9", "r9/1", seen_s=T0 - 1000)
    old.add(CANARY, ok=90, failed=1000)
    run.routers.append(old)
    assert not run.at(20).bad


def test_a_router_of_another_scheme_is_told_and_nothing_passes(new_router, run):
    run.good()
    run.routers.append(new_router("strange", "s/1", scheme="tg9"))
    said = run.at(20)
    assert said.verdict == "Inconclusive"
    assert "strange" in said.message


def test_another_pools_series_are_not_ours(run):
    run.context = replace(run.context, pool_uid="other")
    run.router.add(CANARY, failed=500)
    assert not run.at(20).bad


def test_latency_beyond_the_absolute_limit_fails_with_words(new_run):
    run = new_run(max_p95_s=0.2, min_success_rate=None).to_open_window()
    run.router.add(CANARY, ok=180, slow=41)
    said = run.at(20)
    assert said.message == "p95 509 ms > 200 ms: 41 of 180 attempts above it"
    assert said.bad


def test_a_twentieth_of_slow_attempts_is_what_a_p95_allows(new_run):
    run = new_run(max_p95_s=0.2, min_success_rate=None).to_open_window()
    run.router.add(CANARY, ok=200, slow=10)
    run.router.add(STABLE, ok=200)
    assert run.at(20).passed


def test_latency_beyond_stables_fails_though_no_limit_is_given(new_run):
    run = new_run(max_p95_ratio=1.25, min_success_rate=None).to_open_window()
    run.router.add(STABLE, ok=600)
    run.router.add(CANARY, ok=200, slow=40)
    said = run.at(20)
    assert said.bad
    assert "(1.25 x stable's): 40 of 200" in said.message


def test_a_canary_that_runs_more_in_the_slow_class_is_not_slower(new_run):
    run = new_run(max_p95_ratio=1.25, min_success_rate=None).to_open_window()
    for revision, fast, slow in ((STABLE, 900, 100), (CANARY, 100, 900)):
        run.router.add(revision, ok=fast, accelerator="fast")
        run.router.add(revision, ok=slow, slow=slow, accelerator="slow")
    assert run.at(20).passed


@pytest.mark.parametrize("stable", [{"accelerator": "gpu"}, {"model": "other"}])
def test_nothing_in_common_is_no_verdict_on_a_ratio(new_run, stable):
    run = new_run(max_p95_ratio=1.25).to_open_window()
    run.router.add(CANARY, ok=200)
    run.router.add(STABLE, ok=600, **stable)
    assert names(run.at(20), "Inconclusive") == {"p95Ratio"}


def test_a_canary_that_refuses_what_stable_takes_fails(run):
    run.router.add(STABLE, ok=600, client=6)
    run.router.add(CANARY, ok=150, client=50)
    assert names(run.at(20), "Fail") == {"clientErrors"}


def test_bad_clients_are_not_the_canarys_fault(run):
    run.router.add(STABLE, ok=600, client=200)
    run.router.add(CANARY, ok=150, client=55)
    assert run.at(20).passed


def test_stray_client_errors_pass_where_stable_had_none(run):
    run.router.add(STABLE, ok=600)
    run.router.add(CANARY, ok=198, client=2)
    assert run.at(20).passed


def test_wrong_answers_under_mirror_fail_even_at_weight_0(new_run):
    run = new_run(max_disagreement=0.01)
    run.context = replace(run.context, verified=0, goal=0)
    run.to_open_window()
    run.router.shadow = (200, 15, 5)
    said = run.at(20)
    assert said.message == "disagreement 9.76% > 1.00%: 20 of 205 mirrored requests"
    assert said.bad


def test_equal_answers_under_mirror_pass_at_weight_0_without_attempts(new_run):
    run = new_run(max_disagreement=0.01)
    run.context = replace(run.context, verified=0, goal=0)
    run.to_open_window()
    run.router.shadow = (200, 1, 0)
    assert run.at(20).passed


def test_too_few_comparisons_are_no_verdict(new_run):
    run = new_run(max_disagreement=0.01).to_open_window()
    run.good()
    run.router.shadow = (50, 0, 0)
    assert names(run.at(20), "Inconclusive") == {"shadow"}


def test_at_weight_0_without_a_mirror_nothing_is_judged(new_run):
    run = new_run()
    run.context = replace(run.context, verified=0, goal=0)
    run.at(0)
    assert not run.at(60).windows


ASKED = PrometheusPlan(name="gpu", query="q", min=1.0, max=5.0)


@pytest.mark.parametrize(
    ("result", "verdict", "words"),
    [
        (QueryResult(at_s=T0 + 19, value=3.0), "Pass", "within bounds"),
        (QueryResult(at_s=T0 + 19, value=0.5), "Fail", "gpu 0.5 < 1"),
        (QueryResult(at_s=T0 + 19, value=7.0), "Fail", "gpu 7 > 5"),
        (QueryResult(at_s=T0 + 19, value=math.inf), "Fail", "gpu inf > 5"),
        (QueryResult(at_s=T0 + 19, value=math.nan), "Inconclusive", "NaN"),
        (QueryResult(at_s=T0 + 19, value=None, error="gives nothing"), "Inconclusive", "nothing"),
        (QueryResult(at_s=T0 + 19, value=None), "Inconclusive", "no number"),
        (QueryResult(at_s=T0 - 60, value=3.0), "Inconclusive", "80 s old"),
        (None, "Inconclusive", "not asked yet"),
    ],
)
def test_a_query_is_judged_by_its_bounds_and_without_a_number_not_at_all(
    new_run, result, verdict, words
):
    run = new_run(prometheus=(ASKED,)).to_open_window()
    run.good()
    said = run.at(20, queries={"q": result} if result else {})
    (check,) = [item for item in said.checks if item.name == "prometheus/gpu"]
    assert check.verdict == said.verdict == verdict
    assert words in check.message


def test_a_guard_carries_what_a_router_can_judge_alone():
    plan = AnalysisPlan(interval_s=20, min_requests=50, min_success_rate=0.9, max_p95_s=0.3)
    found = guard(plan, "abc")
    assert (found.revision, found.min_requests, found.interval_s) == ("abc", 50, 20)
    assert (found.min_success_rate, found.max_p95_s) == (0.9, 0.3)


@pytest.mark.parametrize(
    ("rate", "weight", "step_s", "short"),
    [(10, 5, 120, True), (100, 5, 20, False), (20, 5, 100, False), (0, 50, 600, True)],
)
def test_a_step_is_too_short_when_its_requests_cannot_be_enough(rate, weight, step_s, short):
    assert step_too_short(rate, weight, step_s, 100) is short
