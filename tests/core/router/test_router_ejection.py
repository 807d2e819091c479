"""Workers that answer badly or not at all: out, tried, back; never all, never for a bad model."""

import pytest

from tidegate_api.names import DroppedReason
from tidegate_api.routetable import EjectionPolicy
from tidegate_router.core import ejection, report
from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Call, Route, Step
from tidegate_router.core.slot import EjectedFor, Slot
from tidegate_router.core.tally import Tally

POLICY = EjectionPolicy()


def out(one, worker):
    """Whether a worker is ejected or down."""
    return worker in {name for name, _ in one.ejected()} or one.one.dispatcher.down.is_down(worker)


FAST_FAULTS = pytest.mark.parametrize(
    "fault", [Outcome.NEVER_RAN, Outcome.LOST, Outcome.UNREACHABLE]
)


@FAST_FAULTS
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [4, 40])
def test_a_fast_fault_takes_a_worker_out_within_a_second_and_costs_nobody_an_error(
    fleet, fault, seed, size
):
    one = fleet(size, seed=seed)
    one.requests(1000)
    one.behaviour["w1"], before = fault, len(one.log)
    steps = one.requests(200)
    assert set(steps) == {Step.FORWARD}
    failed = [at_s for at_s, _, outcome, _ in one.log[before:] if outcome is fault]
    assert out(one, "w1")
    limit = 3 if fault is not Outcome.UNREACHABLE else 1
    tries = [at_s for at_s in failed if at_s < failed[0] + 0.4]
    assert len(tries) == limit, "and no request more"
    assert tries[-1] - tries[0] < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_whose_model_fails_is_asked_by_few_at_once_and_is_out_in_the_end(fleet, seed):
    one = fleet(seed=seed)
    one.requests(1000)
    one.behaviour["w1"], before = Outcome.MODEL_ERROR, len(one.log)
    one.requests(1000)
    assert 1 <= len([1 for item in one.log[before:] if item[2] is Outcome.MODEL_ERROR]) <= 10
    one.requests(6000)
    assert one.one.dispatcher.keeper.ejections == {("ns", "p", "r1", "consecutive"): 1}


def test_three_faults_in_a_row_and_no_fewer(fleet):
    one = fleet()
    one.requests(40)
    route, slot = one.one.plan(), one.slot("w0")
    for expected in (False, False, True):
        attempt = None
        while attempt is None or attempt.worker_id != "w0":
            attempt = one.one.next(one.one.plan())
        one.one.settle(route, attempt, Outcome.NEVER_RAN)
        assert slot.ejected is expected


def test_a_good_answer_between_faults_starts_the_count_anew():
    slot = Slot(peers=Tally())
    for second in range(60):
        ejection.note_failure(slot, Outcome.NEVER_RAN, float(second))
        ejection.note_failure(slot, Outcome.LOST, float(second))
        for _ in range(9):
            slot.tally.good(float(second))
        slot.faults_in_row = slot.failures_in_row = 0
        assert ejection.verdict(slot, POLICY, float(second)) is None


def test_an_ejected_worker_gets_no_requests_until_its_trial(fleet):
    one = fleet()
    one.requests(100)
    one.behaviour["w2"] = Outcome.NEVER_RAN
    one.requests(200)
    out_s = one.slot("w2").ejection.since_s
    one.requests(2000)
    asked = one.asked("w2", out_s + 1e-9)
    assert [round(at_s - out_s) for at_s in asked] == [5, 10], "one request each 5 s"


@FAST_FAULTS
@pytest.mark.parametrize("size", [4, 40])
def test_a_healed_worker_serves_again_within_ten_seconds(fleet, fault, size):
    one = fleet(size)
    one.requests(400)
    one.behaviour["w2"] = fault
    one.requests(8000)
    assert out(one, "w2")
    one.behaviour.clear()
    healed_s = one.one.now_s
    one.requests(1100)
    assert not out(one, "w2")
    back_s = one.asked("w2", healed_s)[0]
    assert back_s - healed_s <= 5.5
    one.requests(4000)
    share = len(one.asked("w2", back_s)) / (one.one.now_s - back_s) / 200
    assert share == pytest.approx(1 / size, rel=0.5), "with its part of the requests"


def test_one_trial_at_a_time(fleet):
    one = fleet(count=3)
    one.requests(60)
    one.behaviour["w0"] = Outcome.NEVER_RAN
    one.requests(100)
    one.sleep(6)
    taken = [one.one.next(one.one.plan()) for _ in range(30)]
    assert [attempt.trial for attempt in taken if attempt.worker_id == "w0"] == [True]


def test_a_trial_that_says_nothing_lets_the_next_one_follow_at_once(fleet):
    one = fleet(count=3)
    one.requests(60)
    one.behaviour["w0"] = Outcome.NEVER_RAN
    one.requests(100)
    one.sleep(6)
    route = one.one.plan()
    attempt = one.one.next(route)
    assert (attempt.worker_id, attempt.trial) == ("w0", True)
    one.one.settle(route, attempt, Outcome.CANCELLED)
    one.one.now_s += 0.3
    assert one.one.next(one.one.plan()).worker_id == "w0"


def test_a_trial_is_a_request_that_can_go_elsewhere(fleet):
    one = fleet(count=3)
    one.requests(60)
    one.behaviour["w0"] = Outcome.NEVER_RAN
    one.requests(100)
    one.sleep(5.5)
    unsafe = [one.one.next(one.one.plan(replayable=False)) for _ in range(5)]
    assert not any(attempt.trial for attempt in unsafe)
    assert one.one.next(one.one.plan()).trial


def test_without_any_safe_request_an_unsafe_one_tries_after_twice_the_time(fleet):
    one = fleet(count=3)
    one.requests(60)
    one.behaviour["w0"] = Outcome.NEVER_RAN
    one.requests(100)
    one.sleep(10.5)
    assert one.one.next(one.one.plan(replayable=False)).trial


def test_a_trial_that_times_out_gets_little_time_and_costs_no_budget(fleet):
    one = fleet(count=3)
    one.requests(400)
    ejection.eject(one.slot("w0"), EjectedFor.SILENT, POLICY, one.one.now_s)
    one.sleep(6)
    budget = one.one.dispatcher.pools["u1"].budget
    for _ in range(1000):
        budget.take(20, one.one.now_s)
    route = one.one.plan()
    attempt = one.one.next(route)
    assert attempt.trial
    assert attempt.timeout_s == 0.5 < route.deadline_s - one.one.now_s
    assert one.one.settle(route, attempt, Outcome.TIMEOUT) is Step.RETRY


def test_a_model_that_fails_everywhere_ejects_nobody(fleet):
    for seed in range(10):
        one = fleet(seed=seed)
        one.requests(300)
        one.behaviour |= {f"w{n}": Outcome.MODEL_ERROR for n in range(4)}
        one.requests(1000)
        assert one.ejected() == set()


@pytest.mark.parametrize("percent", [5, 30])
def test_a_model_that_fails_now_and_then_ejects_hardly_anybody(fleet, percent):
    one = fleet(seed=7)
    for _ in range(4000):
        failing = one.one.dispatcher.uniform() * 100 < percent
        outcome = Outcome.MODEL_ERROR if failing else Outcome.OK
        one.behaviour |= {f"w{n}": outcome for n in range(4)}
        one.request()
    assert sum(one.one.dispatcher.keeper.ejections.values()) <= 1


def failing_now_and_then(peers_fail):
    """Three of 11 attempts of a worker fail, while `peers_fail` of 50 of its peers do."""
    slot, peers = Slot(), Tally()
    slot.peers = peers
    for _ in range(40):
        slot.tally.good(5.0)
        peers.good(5.0)
    found = []
    for step in range(50):
        if step % 5 == 0:
            ejection.note_failure(slot, Outcome.MODEL_ERROR, 20.0)
            slot.failures_in_row = 0
            found.append(ejection.verdict(slot, POLICY, 20.0))
        elif step % 5 == 1 or step < 40:
            slot.tally.good(20.0)
            peers.good(20.0)
        (peers.fail if step < peers_fail else peers.good)(20.0)
    return found


def test_a_worker_that_is_worse_than_its_peers_is_out_by_ratio():
    found = failing_now_and_then(0)
    assert found[-1] is EjectedFor.RATIO
    assert found[:2] == [None, None], "ten attempts at least"


def test_a_ratio_that_peers_share_is_no_reason():
    assert set(failing_now_and_then(25)) == {None}


def test_a_client_in_a_hurry_ejects_nobody(fleet):
    one = fleet()
    one.requests(200)
    one.behaviour |= {f"w{n}": Outcome.TIMEOUT for n in range(4)}
    for _ in range(100):
        route = one.one.plan(timeout_s=0.05)
        attempt = one.one.next(route)
        one.one.now_s += 0.05
        one.one.settle(route, attempt, Outcome.TIMEOUT, 0.05)
    assert one.ejected() == set()


def test_bad_input_of_clients_ejects_nobody(fleet):
    one = fleet()
    one.behaviour |= {f"w{n}": Outcome.CLIENT for n in range(4)}
    one.requests(500)
    assert one.ejected() == set()
    assert all(one.slot(f"w{n}").failures_in_row == 0 for n in range(4))


@pytest.mark.parametrize(
    ("workers", "percent", "most"),
    [
        (1, 50, 0),
        (2, 50, 1),
        (3, 50, 1),
        (4, 50, 2),
        (10, 30, 3),
        (4, 100, 3),
        (4, 0, 0),
        (9, 1, 1),
    ],
)
def test_the_cap(fleet, workers, percent, most):
    one = fleet(workers, policy={"ejection": {"maxEjectedPercent": percent}})
    one.behaviour |= {f"w{n}": Outcome.NEVER_RAN for n in range(workers)}
    for _ in range(400):
        one.one.now_s += 0.005
        route = one.one.plan()
        attempt = one.one.next(route)
        one.one.settle(route, attempt, Outcome.NEVER_RAN)
        one.one.dispatcher.finish(route, one.one.now_s)
        assert len(one.ejected()) <= most
    assert len(one.ejected()) == most


def test_the_cap_holds_for_each_class(fleet, make_worker):
    workers = [make_worker(f"g{n}", limit=50, accelerator="gpu") for n in range(2)]
    workers += [make_worker(f"c{n}", limit=50, accelerator="cpu") for n in range(4)]
    one = fleet(workers=workers)
    one.requests(100)
    one.behaviour |= {"g0": Outcome.NEVER_RAN, "g1": Outcome.NEVER_RAN, "c0": Outcome.NEVER_RAN}
    one.requests(600)
    names = {name for name, _ in one.ejected()}
    assert len(names & {"g0", "g1"}) == 1
    assert names - {"g0", "g1"} == {"c0"}


def test_in_a_panic_ejections_are_ignored_and_down_never_is(fleet):
    one = fleet(4, policy={"ejection": {"maxEjectedPercent": 100}})
    one.requests(200)
    for name in ("w0", "w1"):
        ejection.eject(one.slot(name), EjectedFor.RATIO, POLICY, one.one.now_s)
    one.one.dispatcher.tick(one.one.now_s + 0.3)
    began_s = one.one.now_s
    one.requests(100)
    assert not one.asked("w0", began_s + 1e-9), "half are left: no panic"
    one.behaviour["w2"] = Outcome.UNREACHABLE
    one.requests(60)
    panic_s = one.one.now_s
    one.requests(60)
    assert one.asked("w0", panic_s), "one of three that can be reached is left"
    assert one.asked("w1", panic_s)
    assert len(one.asked("w2", panic_s)) <= 1


def test_an_ejected_worker_is_the_last_resort_of_a_retry(fleet):
    one = fleet(2)
    one.requests(100)
    ejection.eject(one.slot("w0"), EjectedFor.RATIO, POLICY, one.one.now_s)
    one.behaviour["w1"] = Outcome.NEVER_RAN
    assert one.request() is Step.FORWARD
    assert [name for _, name, _, _ in one.log[-2:]] == ["w1", "w0"]


def test_an_ejected_worker_is_no_way_out_of_saturation(fleet):
    one = fleet(2, limit=2)
    one.requests(100)
    ejection.eject(one.slot("w0"), EjectedFor.RATIO, POLICY, one.one.now_s)
    taken = [one.one.next(one.one.plan()) for _ in range(4)]
    assert [type(item).__name__ for item in taken] == ["Attempt", "Attempt", "Wait", "Wait"]


def test_another_model_of_the_same_worker_goes_on(fleet, make_worker):
    served = make_worker("x").serves[0]
    both = [served, served.model_copy(update={"model": "n"})]
    one = fleet(workers=[make_worker(f"w{n}", serves=both) for n in range(3)])
    one.requests(60)
    one.behaviour["w0"] = Outcome.NEVER_RAN
    one.requests(60)
    one.behaviour.clear()
    since_s = one.one.now_s
    one.requests(60, model="n")
    assert one.asked("w0", since_s)
    assert one.ejected() == {("w0", "consecutive")}


def silent_fleet(fleet, **fields):
    one = fleet(**fields)
    one.requests(400)
    return one


def test_work_in_flight_without_a_byte_ejects(fleet):
    one = silent_fleet(fleet)
    route = one.one.plan()
    held = one.one.next(route)
    silent = held.worker_id
    began_s = one.one.now_s
    while not one.ejected():
        assert one.one.now_s - began_s < 0.5 + 0.3
        one.one.now_s += 0.05
        one.one.dispatcher.view("u1", one.one.now_s)
    assert one.one.now_s - began_s > 0.5
    assert one.ejected() == {(silent, "silent")}
    since_s = one.one.now_s
    one.requests(2000)
    assert not one.asked(silent, since_s), "it is not even tried while it works on something"
    one.one.settle(route, held, Outcome.OK, 10.0)
    assert one.ejected() == set(), "its first byte brings it back"
    one.requests(400)
    assert one.asked(silent, since_s)


def test_what_began_before_a_worker_came_back_ejects_it_no_more(fleet):
    one = silent_fleet(fleet, count=2)
    held = [(route, one.one.next(route)) for route in (one.one.plan() for _ in range(12))]
    one.sleep(2)
    [(silent, _)] = one.ejected()
    mine = [item for item in held if item[1].worker_id == silent]
    assert len(mine) >= 5
    one.one.settle(*mine.pop(), Outcome.OK, 2.0)
    for route, attempt in mine:
        one.one.settle(route, attempt, Outcome.TIMEOUT, 2.0)
    assert one.ejected() == set()
    assert one.slot(silent).latency.value_s is None


def test_a_byte_now_and_then_is_no_silence(fleet):
    one = silent_fleet(fleet)
    held = one.one.next(one.one.plan())
    for _ in range(40):
        one.one.now_s += 0.4
        one.one.dispatcher.heard(held, one.one.now_s)
        one.one.dispatcher.tick(one.one.now_s)
    assert one.ejected() == set()


def test_a_byte_brings_a_silent_worker_back(fleet):
    one = silent_fleet(fleet)
    held = one.one.next(one.one.plan())
    one.sleep(2)
    assert one.ejected() == {(held.worker_id, "silent")}
    one.one.dispatcher.heard(held, one.one.now_s)
    assert one.ejected() == set()


def test_a_slow_model_is_given_three_times_its_p99(fleet):
    one = fleet()
    one.latency_s = 2.0
    one.requests(400)
    one.one.next(one.one.plan())
    one.sleep(5.5)
    assert one.ejected() == set()
    one.sleep(1.0)
    assert len(one.ejected()) == 1


def test_where_nothing_is_known_silence_is_no_fault(fleet):
    one = fleet()
    one.one.next(one.one.plan())
    one.sleep(25)
    assert one.ejected() == set()


def test_a_stream_may_be_silent(fleet):
    one = silent_fleet(fleet)
    stream = one.one.next(one.one.plan(call=Call.STREAM))
    one.sleep(30)
    assert one.ejected() == set()
    one.one.dispatcher.release(stream)
    assert one.slot(stream.worker_id).streams == 0


def test_an_old_stream_says_nothing_about_a_new_request(fleet):
    one = silent_fleet(fleet, count=1)
    one.one.next(one.one.plan(call=Call.STREAM))
    one.sleep(30)
    one.one.next(one.one.plan())
    one.sleep(0.3)
    assert one.slot("w0").heard_s == pytest.approx(one.one.now_s - 0.3)


def test_a_worker_that_was_idle_long_is_not_silent_at_once(fleet):
    one = silent_fleet(fleet)
    one.sleep(600)
    one.one.next(one.one.plan())
    one.sleep(0.3)
    assert one.ejected() == set()


def test_the_time_doubles_only_for_those_that_fall_again():
    slot, now_s, durations = Slot(), 1000.0, []
    for _ in range(8):
        ejection.eject(slot, EjectedFor.CONSECUTIVE, POLICY, now_s)
        durations.append(slot.ejection.duration_s)
        now_s += slot.ejection.duration_s
        ejection.trial_ended(slot, Outcome.NEVER_RAN, now_s)
        now_s += slot.ejection.duration_s
        ejection.trial_ended(slot, Outcome.OK, now_s)
        assert not slot.ejected
        now_s += 1
    assert durations == [5, 10, 20, 40, 80, 160, 300, 300]
    now_s += 4 * 300 + 1
    ejection.eject(slot, EjectedFor.CONSECUTIVE, POLICY, now_s)
    assert slot.ejection.duration_s == 5, "a good while forgives"


def test_ejections_are_counted_by_reason(fleet):
    one = silent_fleet(fleet)
    one.behaviour["w0"] = Outcome.NEVER_RAN
    one.requests(100)
    assert one.one.dispatcher.keeper.ejections == {("ns", "p", "r1", "consecutive"): 1}
    rows = {row["worker"]: row for row in report.workers(one.one.dispatcher, one.one.now_s)}
    assert rows["w0"]["models"][0]["ejected"] == "consecutive"
    assert rows["w1"]["models"][0]["ejected"] == ""
    assert report.worker_counts(one.one.dispatcher)["ejected"] == 1


def test_a_worker_that_is_down_is_tried_by_the_next_request(fleet):
    one = fleet(50)
    one.requests(200)
    one.one.dispatcher.down.unreachable("w7", one.one.now_s)
    one.one.now_s += 0.8
    assert one.request() is Step.FORWARD
    assert one.log[-1][1:] == ("w7", Outcome.OK, True)
    assert not one.one.dispatcher.down.is_down("w7")


def stale(harness, make_worker, make_table, mode):
    one = harness(make_table(make_worker("a", score=0.5), policy={"failureMode": mode}))
    one.now_s += 44
    assert isinstance(one.plan(), Route)
    one.now_s += 2
    return one


def test_fail_closed_refuses_once_no_score_is_trusted(harness, make_worker, make_table):
    one = stale(harness, make_worker, make_table, "FailClosed")
    refused = one.plan()
    assert (refused.reason, refused.http_status) == (DroppedReason.SCORES_STALE, 503)
    assert refused.retry_after_s
    assert isinstance(one.plan(call=Call.INQUIRY), Route)
    one.dispatcher.proof.sequence_advanced(one.now_s)
    one.now_s += 1
    assert isinstance(one.plan(), Route)


def test_fail_open_goes_on(harness, make_worker, make_table):
    assert isinstance(stale(harness, make_worker, make_table, "FailOpen").plan(), Route)
