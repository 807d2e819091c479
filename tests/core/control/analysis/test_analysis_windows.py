"""When windows open, are judged, fail, pass and lack data."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_api.rollout import WindowStatus
from tidegate_operator.core.instants import rfc3339_micro
from tidegate_operator.core.rollout.windows import AnalysisMemory

T0 = 1_800_000_000.0
STABLE, CANARY = "stable", "canary"


def test_a_good_window_passes_at_the_end_of_its_interval_and_the_next_opens(run):
    run.good()
    assert not run.at(19.9).judged
    said = run.at(20)
    assert (said.judged, said.verdict, said.passed, said.bad) == (True, "Pass", True, False)
    assert [window.verdict for window in said.windows] == ["Pass", "Inconclusive"]
    assert said.windows[0].ended_at == said.windows[1].started_at == rfc3339_micro(T0 + 20)
    assert said.windows[1].ended_at is None


def test_what_happened_before_the_window_opened_is_not_judged(new_run):
    run = new_run()
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


def test_at_100_percent_stable_needs_no_requests(new_run):
    run = new_run(max_p95_ratio=1.25)
    run.context = replace(run.context, verified=100, goal=100)
    run.to_open_window()
    run.router.add(CANARY, ok=200)
    assert run.at(20).passed


def test_data_is_missing_once_a_window_waited_for_max_window(new_run):
    run = new_run(max_window_s=30.0)
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
    said = run.at(21, step_index=2, step_since_s=T0 + 21)
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


def test_steps_before_starting_step_are_not_judged(new_run):
    run = new_run(starting_step=2)
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


def test_a_pass_of_an_earlier_canarys_same_step_does_not_count(new_run):
    old = WindowStatus(
        step=1, started_at=rfc3339_micro(T0 - 100), ended_at=rfc3339_micro(T0 - 90), verdict="Pass"
    )
    run = new_run()
    assert not run.at(0, stored=(old,)).passed


@pytest.mark.parametrize("instant", ["", "yesterday", "2026-99-99T00:00:00Z"])
def test_a_stored_window_with_a_broken_time_is_of_no_step(new_run, instant):
    run = new_run()
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
def test_whatever_happens_status_stays_small_and_bad_means_fail(new_run, ticks):
    run, after_s, step = new_run(max_p95_s=0.2, max_p95_ratio=1.1), 0.0, 1
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
