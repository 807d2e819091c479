"""When windows open, are judged, fail, pass and lack data."""

import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_api import histogram as tg1
from tidegate_api.rollout import WindowStatus
from tidegate_api.routerstate import Attempts, RouterState, SeriesState, ShadowState
from tidegate_operator.core.instants import rfc3339_micro
from tidegate_operator.core.observation import QueryResult, RouterMember
from tidegate_operator.core.rollout.analysis import (
    AnalysisContext,
    assess,
    guard,
    step_too_short,
)
from tidegate_operator.core.rollout.model import AnalysisPlan, PrometheusPlan
from tidegate_operator.core.rollout.windows import AnalysisMemory

T0 = 1_800_000_000.0
STABLE, CANARY = "stable", "canary"
FAST, SLOW = tg1.bucket_of(0.05), tg1.bucket_of(0.5)


@dataclass
class Router:
    """A router whose cumulative counts the test moves."""

    name: str = "r0"
    instance: str = "r0/1"
    seen_s: float = T0
    scheme: str = "tg1"
    series: dict = field(default_factory=dict)  # (revision, model, class) -> numbers
    shadow: tuple = (0, 0, 0)

    def add(self, revision, ok=0, failed=0, client=0, slow=0, model="m", accelerator="cpu"):
        before = self.series.get((revision, model, accelerator), (0, 0, 0, 0))
        new = (ok, failed, client, slow)
        both = zip(before, new, strict=True)
        self.series[revision, model, accelerator] = tuple(a + b for a, b in both)

    def member(self, now_s):
        return RouterMember(
            name=self.name, address="", seen_s=self.seen_s, scraped_s=now_s, state=self.state()
        )

    def state(self):
        compared, disagreed, failed = self.shadow
        return RouterState(
            instance=self.instance, synced=True, histogram_scheme=self.scheme,
            series=[self._series(key, numbers) for key, numbers in self.series.items()],
            shadows=[ShadowState(namespace="n", pool="p", uid="u", revision=CANARY, model="m",
                                 compared=compared, disagreed=disagreed, failed=failed)],
        )  # fmt: skip

    def _series(self, key, numbers):
        ok, failed, client, slow = numbers
        revision, model, accelerator = key
        return SeriesState(
            namespace="n", pool="p", uid="u", revision=revision, model=model,
            accelerator=accelerator,
            attempts=Attempts(ok=ok, client=client, model_error=failed, cancelled=99),
            attempt_latency=[(FAST, ok + failed - slow), (SLOW, slow), (999, 5)],
        )  # fmt: skip


class Run:
    """A step at 25 %, verified at T0, and everything `assess` said."""

    def __init__(self, *routers, **plan):
        self.routers = list(routers) or [Router()]
        self.plan = AnalysisPlan(**({"min_success_rate": 0.99, "initial_delay_s": 10.0} | plan))
        self.memory = AnalysisMemory()
        self.context = AnalysisContext(
            now_s=T0, pool_uid="u", stable=STABLE, canary=CANARY, step_index=1, step_since_s=T0,
            step_ends_s=T0 + 60, goal=25, verified=25,
        )  # fmt: skip
        self.said = []

    @property
    def router(self):
        return self.routers[0]

    def at(self, after_s, **changes):
        now_s = T0 + after_s
        members = tuple(router.member(now_s) for router in self.routers)
        self.context = replace(self.context, now_s=now_s, routers=members, **changes)
        said, self.memory = assess(self.plan, self.context, self.memory)
        self.said.append(said)
        return said

    def good(self, canary=200, stable=600):
        self.router.add(CANARY, ok=canary)
        self.router.add(STABLE, ok=stable)

    def to_open_window(self):
        self.at(0)
        assert not self.at(9.9).windows
        assert len(self.at(10).windows) == 1
        return self


@pytest.fixture
def run():
    return Run().to_open_window()


def names(said, verdict):
    return {check.name for check in said.checks if check.verdict == verdict}


def test_a_good_window_passes_at_the_end_of_its_interval_and_the_next_opens(run):
    run.good()
    assert not run.at(19.9).judged
    said = run.at(20)
    assert (said.judged, said.verdict, said.passed, said.bad) == (True, "Pass", True, False)
    assert [window.verdict for window in said.windows] == ["Pass", "Inconclusive"]
    assert said.windows[0].ended_at == said.windows[1].started_at == rfc3339_micro(T0 + 20)
    assert said.windows[1].ended_at is None


def test_what_happened_before_the_window_opened_is_not_judged():
    run = Run()
    run.at(0)
    run.router.add(CANARY, failed=500)
    run.at(10)
    run.good()
    assert run.at(20).verdict == "Pass"


def test_a_judgement_is_told_once(run):
    run.good()
    assert run.at(20).judged
    after = run.at(20.25)
    assert (after.judged, after.bad, after.verdict, after.passed) == (False, False, "Pass", True)


def test_a_bad_window_fails_with_its_numbers_counts_once_and_a_new_one_opens(run):
    run.router.add(CANARY, ok=90, failed=10)
    said = run.at(20)
    assert (said.verdict, said.bad, said.passed) == ("Fail", True, False)
    assert said.message == "success rate 90.00% < 99.00%: 10 of 100 attempts failed"
    (check,) = [item for item in said.checks if item.name == "successRate"]
    assert (check.requests, check.bad, check.value, check.limit) == (100, 10, 0.9, 0.99)
    assert not run.at(21).bad
    assert not run.at(30).bad
    assert [window.verdict for window in run.said[-1].windows] == ["Fail", "Inconclusive"]


def test_a_failure_needs_no_min_requests(run):
    run.router.add(CANARY, failed=4)
    assert run.at(20).bad


def test_one_failed_request_is_no_failure_yet(run):
    run.router.add(CANARY, failed=1)
    said = run.at(20)
    assert (said.verdict, said.bad) == ("Inconclusive", False)


def test_every_bad_window_counts_so_that_failure_limit_can_tolerate_some(run):
    for end in (20, 30, 40):
        run.router.add(CANARY, ok=90, failed=10)
        assert run.at(end).bad


def test_a_tolerated_bad_window_does_not_spoil_the_next_one(run):
    run.router.add(CANARY, ok=90, failed=10)
    assert run.at(20).bad
    run.good()
    said = run.at(30)
    assert (said.verdict, said.passed) == ("Pass", True)


def test_a_pass_before_a_failure_does_not_count_any_more(run):
    run.good()
    assert run.at(20).passed
    run.router.add(CANARY, ok=90, failed=10)
    assert not run.at(30).passed


def test_a_trickle_of_failures_fails_over_the_whole_step(run):
    for end in (20, 30, 40, 50):
        assert not run.at(end).bad
        run.router.add(CANARY, ok=148, failed=4)
        run.router.add(STABLE, ok=600)
    said = run.at(60)
    assert said.bad
    assert said.message.endswith("since the step began")


@pytest.mark.parametrize(
    ("canary", "stable", "words"),
    [(99, 600, "canary has 99"), (200, 99, "stable has 99"),
     (0, 0, "canary has 0, stable has 0")],
)  # fmt: skip
def test_a_window_stays_open_until_both_tracks_have_min_requests(run, canary, stable, words):
    run.good(canary, stable)
    said = run.at(20)
    assert (said.judged, said.verdict, said.passed) == (True, "Inconclusive", False)
    assert f"waiting for 100 requests: {words}" in said.message
    run.good()
    assert run.at(30).passed
    assert run.said[-1].windows[0].started_at == rfc3339_micro(T0 + 10)


def test_a_check_without_attempts_says_so(run):
    said = run.at(20)
    assert [check.message for check in said.checks] == ["no attempts yet"]


def test_at_100_percent_stable_needs_no_requests():
    run = Run(max_p95_ratio=1.25)
    run.context = replace(run.context, verified=100, goal=100)
    run.to_open_window()
    run.router.add(CANARY, ok=200)
    assert run.at(20).passed


def test_data_is_missing_once_the_steps_time_is_over(run):
    assert not any(run.at(end).data_missing for end in (20, 30, 40, 50, 59.9))
    assert run.at(60).data_missing
    assert run.at(61).data_missing
    run.good()
    assert not run.at(70).data_missing


def test_a_step_without_a_time_of_its_own_waits_for_max_window():
    run = Run(max_window_s=30.0)
    run.context = replace(run.context, step_ends_s=T0)
    run.to_open_window()
    assert not any(run.at(end).data_missing for end in (20, 30, 39))
    said = run.at(40)
    assert said.data_missing
    assert [w.verdict for w in said.windows] == ["Inconclusive", "Inconclusive"]
    run.good()
    assert run.at(50).passed
    assert not run.said[-1].data_missing


def test_data_is_not_missing_after_a_pass(run):
    run.good()
    run.at(20)
    assert not any(run.at(end).data_missing for end in (30, 40, 50, 60, 70))


def test_a_new_step_needs_a_pass_of_its_own(run):
    run.good()
    assert run.at(20).passed
    said = run.at(21, step_index=2, step_since_s=T0 + 21, step_ends_s=T0 + 81)
    assert not said.passed
    run.good()
    assert not run.at(30.9).judged
    assert run.at(31).passed  # same weight: no initial delay again


def test_a_risen_weight_waits_for_its_initial_delay(run):
    run.at(20, step_index=2, step_since_s=T0 + 20, goal=50)
    run.at(22, verified=50)
    assert len(run.at(31.9).windows) == 0
    assert len(run.at(32).windows) == 1


def test_below_the_steps_weight_a_window_may_fail_but_not_pass(run):
    run.at(11, goal=50)
    run.good()
    said = run.at(20)
    assert said.verdict == "Inconclusive"
    assert "50 %" in said.message
    run.router.add(CANARY, failed=100)
    assert run.at(30).bad


def test_a_weight_that_falls_with_its_workers_goes_on_being_judged(run):
    run.router.add(CANARY, ok=90, failed=10)
    assert run.at(20, verified=12).bad


def test_a_canary_that_lost_all_weight_begins_with_the_initial_delay_again(run):
    run.at(15, verified=0)
    assert not run.memory.window
    run.at(16, verified=25)
    assert not run.at(25).windows
    assert run.at(26).windows


def test_steps_before_starting_step_are_not_judged():
    run = Run(starting_step=2)
    run.at(0)
    run.router.add(CANARY, failed=500)
    assert not run.at(30).windows


def test_without_a_canary_only_the_last_windows_are_shown(run):
    run.router.add(CANARY, ok=90, failed=10)
    run.at(20)
    said = run.at(21, canary=None)
    assert [window.verdict for window in said.windows] == ["Fail"]
    assert (said.judged, said.bad, said.passed) == (False, False, False)


def test_another_canary_begins_anew(run):
    run.good()
    assert run.at(20).passed
    said = run.at(21, canary="other", step_since_s=T0 + 21)
    assert (said.passed, said.verdict) == (False, None)


def test_after_a_kill_closed_windows_come_from_status_and_the_open_one_begins_anew(run):
    run.good()
    stored = run.at(20).windows
    run.memory = AnalysisMemory()
    said = run.at(21, stored=stored)
    assert said.passed
    assert not said.bad
    assert [window.ended_at is None for window in said.windows] == [False]
    run.router.add(CANARY, failed=100)
    assert not run.at(30.9).windows[1:]
    run.at(31)
    run.router.add(CANARY, failed=100)
    assert run.at(41).bad


def test_a_pass_of_an_earlier_canarys_same_step_does_not_count():
    old = WindowStatus(
        step=1, started_at=rfc3339_micro(T0 - 100), ended_at=rfc3339_micro(T0 - 90), verdict="Pass"
    )
    run = Run()
    assert not run.at(0, stored=(old,)).passed


@pytest.mark.parametrize("instant", ["", "yesterday", "2026-99-99T00:00:00Z"])
def test_a_stored_window_with_a_broken_time_is_of_no_step(instant):
    run = Run()
    broken = WindowStatus(step=1, started_at=instant, ended_at="x", verdict="Pass")
    assert not run.at(0, stored=(broken,)).passed


def test_status_keeps_ten_windows(run):
    for end in range(20, 320, 10):
        run.good()
        run.at(end)
    assert len(run.said[-1].windows) == 10
    assert run.said[-1].windows[-1].ended_at is None


def test_a_late_decision_judges_once_and_keeps_the_rhythm(run):
    assert run.at(47).judged
    assert not run.at(49.9).judged
    assert run.at(50).judged


def test_a_missed_scrape_loses_nothing(run):
    run.good(100, 100)
    members = run.context.routers
    run.good(100, 100)
    run.context = replace(run.context, now_s=T0 + 20, routers=members)
    said, run.memory = assess(run.plan, run.context, run.memory)
    assert not said.passed
    assert run.at(30).passed


def test_a_router_that_is_gone_keeps_what_it_counted():
    run = Run(Router("r0", "r0/1"), Router("r1", "r1/1")).to_open_window()
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


def test_an_endpoint_that_came_after_the_window_counts_from_zero(run):
    late = Router("r9", "r9/1", seen_s=T0 + 12)
    late.add(CANARY, ok=90, failed=10)
    run.routers.append(late)
    assert run.at(20).bad


def test_an_old_endpoint_that_is_first_heard_now_brings_no_history(run):
    old = Router("r9", "r9/1", seen_s=T0 - 1000)
    old.add(CANARY, ok=90, failed=1000)
    run.routers.append(old)
    assert not run.at(20).bad


def test_a_router_of_another_scheme_is_told_and_nothing_passes(run):
    run.good()
    run.routers.append(Router("strange", "s/1", scheme="tg9"))
    said = run.at(20)
    assert said.verdict == "Inconclusive"
    assert "strange" in said.message


def test_another_pools_series_are_not_ours(run):
    run.context = replace(run.context, pool_uid="other")
    run.router.add(CANARY, failed=500)
    assert not run.at(20).bad


def test_latency_beyond_the_absolute_limit_fails_with_words():
    run = Run(max_p95_s=0.2, min_success_rate=None).to_open_window()
    run.router.add(CANARY, ok=180, slow=41)
    said = run.at(20)
    assert said.message == "p95 509 ms > 200 ms: 41 of 180 attempts above it"
    assert said.bad


def test_a_twentieth_of_slow_attempts_is_what_a_p95_allows():
    run = Run(max_p95_s=0.2, min_success_rate=None).to_open_window()
    run.router.add(CANARY, ok=200, slow=10)
    run.router.add(STABLE, ok=200)
    assert run.at(20).passed


def test_latency_beyond_stables_fails_though_no_limit_is_given():
    run = Run(max_p95_ratio=1.25, min_success_rate=None).to_open_window()
    run.router.add(STABLE, ok=600)
    run.router.add(CANARY, ok=200, slow=40)
    said = run.at(20)
    assert said.bad
    assert "(1.25 x stable's): 40 of 200" in said.message


def test_a_canary_that_runs_more_in_the_slow_class_is_not_slower():
    run = Run(max_p95_ratio=1.25, min_success_rate=None).to_open_window()
    for revision, fast, slow in ((STABLE, 900, 100), (CANARY, 100, 900)):
        run.router.add(revision, ok=fast, accelerator="fast")
        run.router.add(revision, ok=slow, slow=slow, accelerator="slow")
    assert run.at(20).passed


@pytest.mark.parametrize("stable", [{"accelerator": "gpu"}, {"model": "other"}])
def test_nothing_in_common_is_no_verdict_on_a_ratio(stable):
    run = Run(max_p95_ratio=1.25).to_open_window()
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


def test_wrong_answers_under_mirror_fail_even_at_weight_0():
    run = Run(max_disagreement=0.01)
    run.context = replace(run.context, verified=0, goal=0)
    run.to_open_window()
    run.router.shadow = (200, 15, 5)
    said = run.at(20)
    assert said.message == "disagreement 9.76% > 1.00%: 20 of 205 mirrored requests"
    assert said.bad


def test_equal_answers_under_mirror_pass_at_weight_0_without_attempts():
    run = Run(max_disagreement=0.01)
    run.context = replace(run.context, verified=0, goal=0)
    run.to_open_window()
    run.router.shadow = (200, 1, 0)
    assert run.at(20).passed


def test_too_few_comparisons_are_no_verdict():
    run = Run(max_disagreement=0.01).to_open_window()
    run.good()
    run.router.shadow = (50, 0, 0)
    assert names(run.at(20), "Inconclusive") == {"shadow"}


def test_at_weight_0_without_a_mirror_nothing_is_judged():
    run = Run()
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
def test_a_query_is_judged_by_its_bounds_and_without_a_number_not_at_all(result, verdict, words):
    run = Run(prometheus=(ASKED,)).to_open_window()
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


@settings(max_examples=60, deadline=None)
@given(
    ticks=st.lists(
        st.tuples(
            st.floats(0, 15), st.integers(0, 300), st.integers(0, 30), st.integers(0, 100),
            st.sampled_from(["", "restart", "forget", "step", "gone"]),
        ),
        max_size=25,
    )
)  # fmt: skip
def test_whatever_happens_status_stays_small_and_bad_means_fail(ticks):
    run, after_s, step = Run(max_p95_s=0.2, max_p95_ratio=1.1), 0.0, 1
    for wait_s, ok, failed, verified, event in ticks:
        after_s += wait_s
        run.router.add(CANARY, ok=ok, failed=failed)
        run.router.add(STABLE, ok=ok)
        changes = {"verified": verified, "canary": None if event == "gone" else CANARY}
        if event == "restart":
            run.router.series, run.router.instance = {}, f"r0/{after_s}"
        if event == "forget":
            run.memory = AnalysisMemory()
            changes["stored"] = run.said[-1].windows if run.said else ()
        if event == "step":
            step += 1
            changes |= {"step_index": step, "step_since_s": T0 + after_s}
        said = run.at(after_s, **changes)
        assert len(said.windows) <= 10
        assert all(window.ended_at for window in said.windows[:-1])
        assert said.bad <= said.judged
        assert not (said.passed and said.data_missing)
        assert said.bad == (said.judged and said.verdict == "Fail")
