import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_api.rollout import ModelRollout
from tidegate_cli.core.simulate import EXIT_CODES, End, Setup, Verdict, simulate
from tidegate_cli.core.trace import parse_trace

PAUSE = {"pause": {"duration": "1m"}}
STEPS = [{"setWeight": 5}, PAUSE, {"setWeight": 50}, PAUSE]
GOOD = {
    "at": "0s", "rate": 200, "stable": {"p95": "80ms", "errors": 0.001},
    "canary": {"p95": "85ms", "errors": 0.002},
}  # fmt: skip
ANALYSIS = {"successRate": {"min": 0.99}, "p95Latency": {"max": "200ms", "maxRatioToStable": 1.5}}


def run(*rows, promote=False, steps=STEPS, most_s=7200.0, **spec):
    """Return (events as texts with their second, the end)."""
    spec = {"poolRef": {"name": "vision"}, "steps": steps, "analysis": ANALYSIS, **spec}
    rollout = ModelRollout.model_validate({"metadata": {"name": "r"}, "spec": spec})
    setup = Setup(begun_s=1.7e9, promote=promote, most_s=most_s)
    *events, end = simulate(rollout, parse_trace("trace", list(rows)), setup)
    assert isinstance(end, End)
    return [(event.at_s, event.text) for event in events], end


def at(events, text):
    return next(at_s for at_s, told in events if text in told)


def test_a_good_canary_goes_through_all_steps():
    events, end = run(GOOD)
    assert end.verdict is Verdict.PROMOTED
    weights = [text.rpartition(": ")[2] for _, text in events if "TrafficWeightUpdated" in text]
    assert weights == ["0 % -> 5 %", "5 % -> 50 %", "50 % -> 100 %"]
    waited_s = at(events, "5 % -> 50 %") - at(events, "step 2/4 is completed")
    assert waited_s == 30, "the second worker starts first"


@pytest.mark.parametrize(
    ("canary", "words"),
    [
        ({"p95": "400ms"}, "p95"),
        ({"errors": 0.1}, "success rate"),
    ],
)
def test_a_canary_that_turns_bad_is_rolled_back_within_an_interval_and_two_seconds(canary, words):
    events, end = run(GOOD, {"at": "150s", "canary": canary})
    assert end.verdict is Verdict.ROLLED_BACK
    assert words in end.message
    gone_s = at(events, "every live router sends 0 %")
    assert 150 < gone_s <= 150 + 10 + 10 + 2, "the interval under way ends, then at most one more"


def test_wrong_answers_under_mirror_roll_back_before_any_weight():
    spec = {
        "steps": [{"setWeight": 0}, {"pause": {"duration": "5m"}}, {"setWeight": 50}],
        "mirror": {"percent": 10},
        "analysis": {"shadow": {"maxDisagreement": 0.01}},
    }
    events, end = run({**GOOD, "canary": {"disagreement": 0.2}}, **spec)
    assert end.verdict is Verdict.ROLLED_BACK
    assert not [text for _, text in events if "TrafficWeightUpdated" in text]


def test_a_prometheus_check_reads_the_trace_by_name():
    check = {"name": "memory", "query": "max(x)", "max": 1.0}
    analysis = {**ANALYSIS, "prometheus": [check]}
    fine = {**GOOD, "prometheus": {"memory": 0.5}}
    assert run(fine, analysis=analysis)[1].verdict is Verdict.PROMOTED
    broken = {"at": "150s", "prometheus": {"memory": 2.0}}
    assert run(fine, broken, analysis=analysis)[1].verdict is Verdict.ROLLED_BACK


def test_too_little_traffic_waits_for_promote():
    _, end = run({**GOOD, "rate": 2})
    assert end.verdict is Verdict.WAITING
    assert "waiting for 100 requests" in end.message


def test_too_little_traffic_passes_where_the_user_says_so():
    _, end = run({**GOOD, "rate": 2}, analysis={**ANALYSIS, "onNoData": "Pass"})
    assert end.verdict is Verdict.PROMOTED


def test_a_gate_ends_the_simulation_unless_promoted():
    steps = [{"setWeight": 5}, {"pause": {}}]
    assert run(GOOD, steps=steps)[1].verdict is Verdict.WAITING
    assert run(GOOD, steps=steps, promote=True)[1].verdict is Verdict.PROMOTED


def test_two_gates_are_promoted_one_after_the_other():
    steps = [{"setWeight": 5}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
    assert run(GOOD, steps=steps, promote=True)[1].verdict is Verdict.PROMOTED


def test_a_worker_that_cannot_start_is_rolled_back():
    _, end = run({**GOOD, "canary": {"failure": "no such file"}})
    assert end.verdict is Verdict.ROLLED_BACK
    assert "no such file" in end.message


def test_workers_that_never_become_ready_stall_after_the_deadline():
    _, end = run({**GOOD, "canary": {"ready": False}}, progressDeadline="5m")
    assert end.verdict is Verdict.STALLED
    assert 300 <= end.at_s <= 302


def test_a_paused_rollout_is_unfinished_at_the_limit():
    assert run(GOOD, paused=True, most_s=600.0)[1].verdict is Verdict.UNFINISHED


def test_without_analysis_steps_go_by_time_alone():
    _, end = run({**GOOD, "canary": {"errors": 1.0}}, analysis=None)
    assert end.verdict is Verdict.PROMOTED


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("Promoted", 0), ("RolledBack", 1), ("Stalled", 1), ("WaitingForPromote", 3),
     ("Unfinished", 3)],
)  # fmt: skip
def test_the_exit_code_of_an_end(verdict, code):
    assert EXIT_CODES[Verdict(verdict)] == code


@settings(max_examples=25, deadline=None)
@given(
    rate=st.floats(min_value=1, max_value=5000),
    errors=st.floats(min_value=0, max_value=1),
    p95_ms=st.integers(min_value=1, max_value=2000),
    turns_s=st.integers(min_value=1, max_value=200),
)
def test_whatever_the_trace_says_weights_rise_to_the_steps_and_the_end_fits_them(
    rate, errors, p95_ms, turns_s
):
    turned = {"at": f"{turns_s}s", "canary": {"errors": errors, "p95": f"{p95_ms}ms"}}
    events, end = run({**GOOD, "rate": rate}, turned, most_s=900.0)
    weights = [
        int(text.rpartition("-> ")[2].removesuffix(" %"))
        for _, text in events
        if "TrafficWeightUpdated" in text
    ]
    assert set(weights) <= {0, 5, 50, 100}
    assert end.verdict is not Verdict.PROMOTED or weights[-1] == 100
    assert end.verdict is not Verdict.ROLLED_BACK or weights[-1] == 0
