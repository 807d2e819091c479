"""When Triton may be stopped, and when a crash is one too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_worker.core.drain import Draining, may_stop
from tidegate_worker.core.restarts import backoff_s, gives_up, model_backoff_s
from tidegate_worker.core.serverflags import ServerPlan, command
from tidegate_worker.core.versions import below


def draining(**changes):
    seen = {
        "began_s": 100.0,
        "timeout_s": 60.0,
        "acknowledged": False,
        "scraped_s": None,
        "busy_s": 0.0,
        "was_ready": True,
        **changes,
    }
    return Draining(**seen)


CASES = [
    ("routers let go, idle for 1 s", {"acknowledged": True, "busy_s": 101.0}, 102.0, True),
    ("routers let go, idle for less", {"acknowledged": True, "busy_s": 101.5}, 102.0, False),
    ("routers let go, work runs", {"acknowledged": True, "busy_s": 120.0}, 120.1, False),
    ("sequences need longer", {"acknowledged": True, "busy_s": 101.0, "idle_s": 3.0}, 103.0, False),
    ("sequences ended", {"acknowledged": True, "busy_s": 101.0, "idle_s": 3.0}, 104.0, True),
    ("the operator asks, no acknowledgement", {"scraped_s": 119.0}, 120.0, False),
    ("nobody asks for less than 3 s", {"busy_s": 0.0}, 102.9, False),
    ("nobody asks for 3 s, idle for 5 s", {"busy_s": 98.0}, 103.0, True),
    ("nobody asks, idle for less than 5 s", {"busy_s": 99.0}, 103.9, False),
    ("the operator went away", {"scraped_s": 110.0, "busy_s": 105.0}, 113.0, True),
    ("a scrape before the drain counts from its begin", {"scraped_s": 50.0}, 102.9, False),
    ("the timeout ends everything", {"busy_s": 160.0, "scraped_s": 160.0}, 160.0, True),
    ("just before the timeout", {"busy_s": 159.9, "scraped_s": 159.9}, 159.9, False),
    ("never ready: nobody ever sent anything", {"was_ready": False, "busy_s": 99.9}, 100.0, True),
]


@pytest.mark.parametrize(
    ("changes", "now_s", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_triton_is_stopped_when_nothing_can_come_any_more(changes, now_s, expected):
    assert may_stop(draining(**changes), now_s) is expected


@given(
    acknowledged=st.booleans(),
    scraped_s=st.none() | st.floats(0, 200),
    busy_s=st.floats(0, 200),
    now_s=st.floats(100, 200),
)
def test_work_of_the_last_second_is_never_cut_off_before_the_timeout(
    acknowledged, scraped_s, busy_s, now_s
):
    seen = draining(acknowledged=acknowledged, scraped_s=scraped_s, busy_s=busy_s)
    if may_stop(seen, now_s) and now_s < 160.0:
        assert now_s - busy_s >= 1.0
    assert may_stop(seen, max(now_s, 160.0))


CRASHES = [
    ("none", [], 100.0, False),
    ("two in a minute", [50.0, 90.0], 100.0, False),
    ("three in a minute", [41.0, 50.0, 90.0], 100.0, True),
    ("three, one of them long ago", [1.0, 50.0, 90.0], 100.0, False),
]


@pytest.mark.parametrize(
    ("crashes_s", "now_s", "expected"), [c[1:] for c in CRASHES], ids=[c[0] for c in CRASHES]
)
def test_three_crashes_in_a_minute_are_enough(crashes_s, now_s, expected):
    assert gives_up(crashes_s, now_s) is expected


def test_a_crash_of_a_minute_ago_still_lengthens_the_pause():
    assert backoff_s([40.0, 100.0], 100.0) == 1.0
    assert backoff_s([39.9, 100.0], 100.0) == 0.5


def test_pauses_double_and_are_bounded():
    assert [backoff_s([100.0] * n, 100.0) for n in (1, 2, 3, 9)] == [0.5, 1.0, 2.0, 8.0]
    assert [model_backoff_s(n) for n in (0, 1, 2, 3, 7, 10**6)] == [1.0, 1.0, 2.0, 4.0, 60.0, 60.0]


VERSIONS = [
    ("older", "2.51.0", True),
    ("the floor itself", "2.59.0", False),
    ("newer", "2.60.1", False),
    ("numbers, not text", "2.100.0", False),
    ("another major", "3.0.0", False),
    ("unreadable counts as old", "2.59.0-dev", True),
    ("empty counts as old", "", True),
]


@pytest.mark.parametrize(
    ("version", "old"), [v[1:] for v in VERSIONS], ids=[v[0] for v in VERSIONS]
)
def test_a_server_below_the_floor_is_known(version, old):
    assert below(version, "2.59.0") is old


def plan():
    return ServerPlan(
        binary="/bin/tritonserver",
        repository="/state/repository",
        backends="/state/backends",
        http_port=8000,
        grpc_port=8001,
        metrics_port=8002,
        exit_timeout_s=1,
        key="00ff",
        shm_prefix="tidegate-1-0-",
    )


def test_control_apis_ask_for_the_key_on_both_ports():
    given = [flag for flag in command(plan()) if "restricted" in flag]
    apis = "model-repository,model-config,shared-memory,trace,logging"
    assert given == [
        f"--http-restricted-api={apis}:x-tidegate-restricted-key=00ff",
        f"--grpc-restricted-protocol={apis}:x-tidegate-restricted-key=00ff",
    ]


def test_metrics_stay_inside_the_pod_and_one_bad_model_does_not_end_the_server():
    flags = command(plan())
    assert "--metrics-address=127.0.0.1" in flags
    assert "--model-control-mode=explicit" in flags
    assert "--exit-on-error=false" in flags
