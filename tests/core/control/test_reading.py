"""The API server's JSON as decisions read it: tables, and any document that it could serve."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.names import LABEL_CLASS, LABEL_REVISION, LABEL_WORKER_SET
from tidegate_operator.core import reading

INT32 = st.integers(-(2**31), 2**31 - 1)
LEAVES = st.none() | st.booleans() | INT32 | st.floats(-1e9, 1e9) | st.text(max_size=6)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner)
)
READERS = (
    reading.read_owned, reading.read_deployment, reading.read_revision, reading.read_pod,
    reading.read_autoscaler, lambda item: reading.ready_endpoints([item]),
)  # fmt: skip


def shaped(inner):
    """Objects with the keys that are looked for, and anything at all behind them."""
    entry = st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("type", "status", "message", "state", "lastState", "restartCount",
             "addresses", "conditions", "targetRef", "controller", "uid"),
            inner,
        ),
    )  # fmt: skip
    entries = st.lists(entry | inner, max_size=3) | inner
    meta = st.fixed_dictionaries(
        {},
        optional={
            "name": inner, "labels": inner | st.dictionaries(st.text(), inner, max_size=2),
            "annotations": st.dictionaries(st.just(reading.DELETION_COST), inner) | inner,
            "ownerReferences": entries, "creationTimestamp": inner, "deletionTimestamp": inner,
        },
    )  # fmt: skip
    status = st.fixed_dictionaries(
        {},
        optional={
            "conditions": entries, "containerStatuses": entries, "initContainerStatuses": entries,
            "readyReplicas": inner, "podIP": inner, "phase": inner,
        },
    )  # fmt: skip
    return st.fixed_dictionaries(
        {},
        optional={
            "metadata": meta | inner, "status": status | inner, "spec": inner, "data": inner,
            "revision": inner, "endpoints": entries,
        },
    )  # fmt: skip


@given(shaped(JSON))
def test_whatever_others_wrote_is_read_without_an_error(document):
    for read in READERS:
        read(document)


def test_an_empty_document_reads_as_neutral():
    pod = reading.read_pod({})
    assert (pod.uid, pod.ip, pod.phase, pod.ready, pod.terminating) == ("", "", "Pending", False,
                                                                       False)  # fmt: skip
    assert (pod.problems, pod.deletion_cost, pod.created_s) == ((), 0, 0.0)
    assert reading.read_deployment({}).replicas == 0
    assert reading.read_owned({}).controller_uid is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(("a", "b"), 1, id="a-value-below-two-keys"),
        pytest.param(("a", "c"), None, id="an-absent-key"),
        pytest.param(("a", "b", "c"), None, id="a-path-that-goes-on-below-a-number"),
        pytest.param(("list", "0"), None, id="a-list-has-no-keys"),
        pytest.param((), {"a": {"b": 1}, "list": [7]}, id="no-path-is-the-whole"),
    ],
)
def test_paths(path, expected):
    assert reading.at({"a": {"b": 1}, "list": [7]}, *path) == expected


def test_what_is_no_record_among_records_is_left_out():
    assert reading.records({"items": [{"a": 1}, None, "x", {"b": 2}]}, "items") == [
        {"a": 1},
        {"b": 2},
    ]
    assert list(reading.records({"items": {"a": 1}}, "items")) == []
    assert reading.texts({"labels": {"a": 1, "b": "two"}}, "labels") == {"a": "1", "b": "two"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.250000Z", 60.25),
        ("1970-01-01T02:00:00+02:00", 0.0),
        ("", 0.0),
        ("yesterday", 0.0),
    ],
)
def test_times(text, expected):
    assert reading.epoch_s(text) == expected


def reference(uid, **more):
    return {"uid": uid, "kind": "InferencePool", "name": "vision", **more}


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        pytest.param([], None, id="nobody"),
        pytest.param([reference("u1")], None, id="an-owner-that-does-not-control"),
        pytest.param([reference("u1", controller=False)], None, id="one-that-says-so"),
        pytest.param([reference("u1"), reference("u2", controller=True)], "u2", id="the-second"),
    ],
)
def test_the_controlling_owner(owners, expected):
    owned = reading.read_owned({"kind": "Service", "metadata": {"ownerReferences": owners}})
    assert owned.controller_uid == expected
    assert owned.controller_name == ("vision" if expected else "")


def test_a_pod_is_read_whole():
    pod = reading.read_pod(
        {
            "metadata": {
                "uid": "p1", "name": "vision-1", "creationTimestamp": "1970-01-01T00:00:09Z",
                "deletionTimestamp": "1970-01-01T00:01:00Z",
                "labels": {LABEL_WORKER_SET: "vision-r1-cpu", LABEL_REVISION: "r1",
                           LABEL_CLASS: "cpu"},
            },
            "spec": {"nodeName": "n1"},
            "status": {
                "podIP": "10.0.0.9", "phase": "Running", "reason": "Why", "message": "because",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )  # fmt: skip
    assert (pod.uid, pod.name, pod.ip, pod.node) == ("p1", "vision-1", "10.0.0.9", "n1")
    assert (pod.worker_set, pod.revision, pod.accelerator) == ("vision-r1-cpu", "r1", "cpu")
    assert (pod.phase, pod.phase_reason, pod.phase_message) == ("Running", "Why", "because")
    assert (pod.ready, pod.terminating, pod.created_s) == (True, True, 9.0)


@pytest.mark.parametrize(
    ("conditions", "ready", "unschedulable"),
    [
        pytest.param([{"type": "Ready", "status": "False"}], False, "", id="not-ready"),
        pytest.param([{"type": "Ready", "status": "Unknown"}], False, "", id="nobody-knows"),
        pytest.param([{"type": "ContainersReady", "status": "True"}], False, "", id="another-type"),
        pytest.param(
            [{"type": "PodScheduled", "status": "False", "message": "no GPU"}], False, "no GPU",
            id="unschedulable",
        ),
        pytest.param(
            [{"type": "PodScheduled", "status": "True", "message": "old"}], False, "",
            id="scheduled-at-last",
        ),
    ],
)  # fmt: skip
def test_a_pods_conditions(conditions, ready, unschedulable):
    pod = reading.read_pod({"status": {"conditions": conditions}})
    assert (pod.ready, pod.unschedulable_message) == (ready, unschedulable)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-100", -100), ("7", 7), ("", 0), ("--7", 0), ("soon", 0), ("1.5", 0), ("²", 0),
        ("9" * 5000, 0),
    ],
    ids=["below zero", "above", "none", "two signs", "a word", "a fraction", "superscript", "long"],
)  # fmt: skip
def test_a_deletion_cost_that_is_no_number_counts_as_none(text, expected):
    pod = reading.read_pod({"metadata": {"annotations": {reading.DELETION_COST: text}}})
    assert pod.deletion_cost == expected


WAITS = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
FAILED = {"terminated": {"exitCode": 3, "reason": "Error", "message": "no model"}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({"state": {"running": {}}}, None, id="runs"),
        pytest.param({"state": {"terminated": {"exitCode": 0}}}, None, id="ended-well"),
        pytest.param({"state": WAITS}, ("CrashLoopBackOff", "", None), id="waits"),
        pytest.param({"state": FAILED}, ("", "no model", 3), id="ended-badly"),
        pytest.param(
            {"state": {"running": {}}, "lastState": FAILED}, ("", "no model", 3),
            id="runs-again-after-a-bad-end",
        ),
        pytest.param(
            {"state": WAITS, "lastState": FAILED}, ("CrashLoopBackOff", "no model", 3),
            id="waits-after-a-bad-end",
        ),
        pytest.param(
            {"state": {"terminated": {"exitCode": 0}}, "lastState": FAILED}, None,
            id="ended-well-at-last",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["initContainerStatuses", "containerStatuses"])
def test_what_is_wrong_with_a_container(key, status, expected):
    found = reading.read_pod({"status": {key: [{"name": "c", "restartCount": 2, **status}]}})
    if expected is None:
        assert found.problems == ()
        return
    (problem,) = found.problems
    words = (problem.waiting_reason, problem.terminated_message, problem.exit_code)
    assert words == expected
    assert (problem.container, problem.restarts) == ("c", 2)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([{"type": "ReplicaFailure", "status": "True", "message": "quota"}], "quota"),
        ([{"type": "ReplicaFailure", "status": "False", "message": "quota"}], ""),
        ([{"type": "Progressing", "status": "True", "message": "quota"}], ""),
    ],
    ids=["fails", "failed before", "another type"],
)
def test_why_a_worker_set_gets_no_pods(conditions, expected):
    item = {"spec": {"replicas": 3}, "status": {"readyReplicas": 1, "conditions": conditions}}
    found = reading.read_deployment(item)
    assert (found.replica_failure, found.replicas, found.ready) == (expected, 3, 1)


def endpoint(address, name="", *, ready=True):
    target = {"targetRef": {"name": name}} if name else {}
    return {"addresses": [address], "conditions": {"ready": ready}, **target}


def test_only_ready_endpoints_of_all_slices_count():
    slices = [
        {"endpoints": [endpoint("10.0.0.1", "r-1"), endpoint("10.0.0.2", "r-2", ready=False)]},
        {"endpoints": None},
        {"endpoints": [endpoint("10.0.0.3"), {"conditions": {"ready": True}, "addresses": []}]},
    ]
    assert reading.ready_endpoints(slices) == {"r-1": "10.0.0.1", "10.0.0.3": "10.0.0.3"}
