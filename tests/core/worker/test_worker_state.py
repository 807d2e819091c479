"""What the worker says of itself: phase, reasons, and the document at /v1/state."""

import json
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.names import Reason
from tidegate_api.state import DeviceState, Phase, WorkerState
from tidegate_worker.core.copies import Main
from tidegate_worker.core.credentials import https_headers, storage_options
from tidegate_worker.core.errors import ModelError
from tidegate_worker.core.lifecycle import ModelStatus, ServerStatus, Stage, is_ready, judge
from tidegate_worker.core.measure import Counters, Reading
from tidegate_worker.core.pressure import Thresholds
from tidegate_worker.core.probe import Proof
from tidegate_worker.core.view import Identity, Observation, worker_state

PROVEN = Proof(ready=True, strength="Strong", proven_s=1.0)
FETCHING = ModelStatus(name="a", stage=Stage.FETCHING)
LOADING = ModelStatus(name="a", stage=Stage.LOADING)
LOADED = ModelStatus(name="a", stage=Stage.LOADED, message="loaded, not proven yet")
SERVING = ModelStatus(name="a", stage=Stage.LOADED, proof=PROVEN)
BROKEN = ModelStatus(
    name="b", stage=Stage.FETCHING, reason=Reason.MODEL_FETCH_FAILED, message="403"
)
HUNG = ModelStatus(
    name="a", stage=Stage.LOADED, proof=Proof(message="took longer than 5 s", proven_s=1.0)
)
UP = ServerStatus(running=True, version="2.59.0", backends=("python",))
CRASHED = ServerStatus(last_crash="tritonserver ended by signal SIGSEGV", restarts=1)

CASES = [
    ("fetching", [FETCHING], UP, {}, Phase.FETCHING, ""),
    ("fetched, the server starts", [LOADING], ServerStatus(), {}, Phase.STARTING, ""),
    ("loaded, not proven", [LOADED], UP, {}, Phase.STARTING, ""),
    ("one serves, one is fetched", [SERVING, FETCHING], UP, {}, Phase.FETCHING, ""),
    ("all serve", [SERVING], UP, {}, Phase.READY, ""),
    ("one cannot be fetched", [SERVING, BROKEN], UP, {}, Phase.NOT_READY, "ModelFetchFailed"),
    ("one hangs", [HUNG], UP, {}, Phase.NOT_READY, "ModelNotReady"),
    ("the server crashed", [LOADING], CRASHED, {}, Phase.NOT_READY, "ServerCrashed"),
    ("it was ready and loads again", [LOADING], UP, {"was_ready": True}, Phase.NOT_READY, ""),
    ("draining", [SERVING], UP, {"draining": True}, Phase.DRAINING, ""),
    ("draining with a broken model", [BROKEN], UP, {"draining": True}, Phase.DRAINING, ""),
    ("stopped", [LOADING], ServerStatus(stopped=True), {"draining": True}, Phase.STOPPED, ""),
    ("gave up", [LOADING], ServerStatus(gave_up=True, last_crash="x"), {}, Phase.FAILED,
     "ServerCrashed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("models", "server", "more", "phase", "reason"),
    [c[1:] for c in CASES],
    ids=[c[0] for c in CASES],
)
def test_a_worker_has_one_phase_and_the_first_reason(models, server, more, phase, reason):
    found = judge(models, server, **{"draining": False, "was_ready": False, **more})
    assert (found.phase, found.reason) == (phase, reason)
    assert found.ready is (phase is Phase.READY)


def test_the_workers_message_names_the_model():
    found = judge([SERVING, BROKEN], UP, draining=False, was_ready=True)
    assert found.message == "model b: 403"


STATUSES = st.builds(
    ModelStatus,
    name=st.just("a"),
    stage=st.sampled_from(Stage),
    reason=st.none() | st.just(Reason.MODEL_LOAD_FAILED),
    proof=st.sampled_from([Proof(), PROVEN, HUNG.proof]),
)
SERVERS = st.builds(
    ServerStatus,
    running=st.booleans(),
    gave_up=st.booleans(),
    stopped=st.booleans(),
    last_crash=st.sampled_from(["", "x"]),
)


@given(st.lists(STATUSES, min_size=1, max_size=3), SERVERS, st.booleans(), st.booleans())
def test_ready_means_that_every_model_is_proven_and_nobody_drains(models, server, drains, was):
    found = judge(models, server, draining=drains, was_ready=was)
    if found.ready:
        assert all(map(is_ready, models))
        assert server.running
        assert not drains


def observation(**changes):
    seen = {
        "identity": Identity(
            uid="u",
            name="w-0",
            accelerator="cpu",
            instance="u/1",
            security_floor="2.59.0",
        ),
        "generation": 3,
        "main": Main("r1", frozenset({"a", "b"})),
        "models": [SERVING],
        "server": UP,
        "draining": False,
        "was_ready": True,
        "readings": deque(),
        "devices": [],
        "window": (),
        "thresholds": Thresholds(),
        "measurement_age_s": 0.5,
        **changes,
    }
    return Observation(**seen)


def test_a_cpu_worker_says_nothing_of_devices():
    found = worker_state(observation()).to_wire()
    assert found["devices"] == []
    assert {"memoryPressure", "thermal"}.isdisjoint(found)


def test_the_document_survives_its_own_wire_form():
    device = DeviceState(uuid="GPU-1", memory_used_bytes=9, memory_total_bytes=10)
    found = worker_state(observation(devices=[device]))
    assert WorkerState.model_validate_json(json.dumps(found.to_wire())) == found
    assert found.memory_pressure == "Critical"


def test_a_models_load_comes_from_its_counters():
    before = Counters(successes=0)
    now = Counters(
        successes=10,
        inferences=40,
        executions=10,
        pending=3,
        quantiles_ms={0.5: 1.0, 0.9: 1.5, 0.95: 2.0, 0.99: 3.0, 0.999: 4.0},
    )
    readings = deque([Reading(0.0, {"a": before}), Reading(1.0, {"a": now})])
    (found,) = worker_state(observation(readings=readings)).models
    assert (found.queue, found.in_flight, found.successes) == (3, 3, 10)
    assert (found.requests_per_second, found.mean_batch_size) == (10.0, 4.0)
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (1.0, 2.0, 3.0)


FLOORS = [("old", "2.51.0", True), ("new", "2.59.0", False), ("not known yet", "", False)]


@pytest.mark.parametrize(("version", "below"), [f[1:] for f in FLOORS], ids=[f[0] for f in FLOORS])
def test_a_server_below_the_floor_is_told(version, below):
    found = worker_state(observation(server=ServerStatus(running=True, version=version)))
    assert found.server.below_security_floor is below


def test_a_model_on_its_way_says_where_it_is_without_a_reason():
    (found,) = worker_state(observation(models=[LOADED])).models
    assert (found.reason, found.message) == ("", "loaded, not proven yet")


SECRETS = [
    ("no secret", "s3", {}, {}),
    ("an s3 key", "s3", {"access_key_id": "k\n", "secret_access_key": "s"},
     {"key": "k", "secret": "s"}),
    ("another s3", "s3", {"endpoint_url": "http://minio:9000", "region": "eu-1"},
     {"endpoint_url": "http://minio:9000", "client_kwargs": {"region_name": "eu-1"}}),
    ("a service account", "gs", {"credentials.json": '{"type": "service_account"}'},
     {"token": {"type": "service_account"}}),
    ("an empty file is no key", "s3", {"access_key_id": " \n"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("scheme", "secret", "options"), [s[1:] for s in SECRETS], ids=[s[0] for s in SECRETS]
)
def test_a_secrets_files_become_the_clients_options(scheme, secret, options):
    assert storage_options(scheme, secret) == options


HEADERS = [
    ("the header's value", {"authorization": "Bearer x\n"}, {"Authorization": "Bearer x"}),
    ("an s3 key is no header", {"access_key_id": "k"}, {}),
    ("an empty file is none", {"authorization": "\n"}, {}),
]


@pytest.mark.parametrize(
    ("secret", "headers"), [h[1:] for h in HEADERS], ids=[h[0] for h in HEADERS]
)
def test_a_secrets_authorization_becomes_the_header(secret, headers):
    assert https_headers(secret) == headers


@pytest.mark.parametrize("text", ["not json", "[1]"])
def test_a_damaged_service_account_is_named_without_its_content(text):
    with pytest.raises(ModelError, match=r"credentials\.json") as refused:
        storage_options("gs", {"credentials.json": text})
    assert text not in str(refused.value)


SECOND = ModelStatus(
    name="a--22222222",
    model="a",
    revision="22222222",
    reason=Reason.MODEL_LOAD_FAILED,
    message="no weights",
)


def test_a_second_revision_in_trouble_is_told_and_leaves_the_worker_ready():
    found = worker_state(observation(models=[SERVING, SECOND]))
    assert (found.ready, found.reason, found.revision) == (True, "", "r1")
    assert found.models_generation == 3
    assert (found.models[1].reason, found.models[1].message) == ("ModelLoadFailed", "no weights")
    wire = found.to_wire()["models"]
    assert "loadedAs" not in wire[0]
    assert (wire[1]["name"], wire[1]["loadedAs"], wire[1]["revision"]) == (
        "a",
        "a--22222222",
        "22222222",
    )


def test_a_main_revision_under_another_name_is_what_readiness_is_about():
    main = Main("22222222", frozenset({SECOND.name}))
    found = worker_state(observation(models=[SERVING, SECOND], main=main))
    assert (found.ready, found.reason) == (False, "ModelLoadFailed")
    assert found.message == "model a: no weights"


def test_copies_of_a_model_are_measured_apart():
    counters = {"a": Counters(successes=10), "a--22222222": Counters(successes=3, failures=1)}
    readings = deque([Reading(0.0, {}), Reading(1.0, counters)])
    found = worker_state(observation(models=[SERVING, SECOND], readings=readings)).models
    assert [(m.successes, m.failures) for m in found] == [(10, 0), (3, 1)]
