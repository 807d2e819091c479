"""What a notification says, how it is signed, what an answer means, when it is sent again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.meta import ObjectMeta
from tidegate_api.names import RolloutEventReason
from tidegate_api.rollout import ModelRolloutStatus
from tidegate_operator.core.notification import (
    MOST_AGE_S,
    Delivery,
    body_of,
    judge,
    next_attempt_s,
    notification,
    signature,
)
from tidegate_operator.core.rollout.model import Note

AT_S = 1_700_000_000.0


def told(version="7", message="p95 900 ms > 250 ms", uid="u1", **status):
    meta = ObjectMeta(name="vision", namespace="ml", uid=uid, resource_version=version)
    note = Note(RolloutEventReason.ROLLOUT_ABORTED, message, warning=True)
    return notification(meta, ModelRolloutStatus(**status), note, AT_S)


def test_the_body_names_event_object_revision_and_time():
    event = told(canary_revision="r2", stable_revision="r1")
    assert json.loads(body_of(event)) == {
        "id": event.id,
        "reason": "RolloutAborted",
        "message": "p95 900 ms > 250 ms",
        "namespace": "ml",
        "rollout": "vision",
        "revision": "r2",
        "at": "2023-11-14T22:13:20Z",
        "warning": True,
    }


@pytest.mark.parametrize(
    ("status", "revision"),
    [
        ({"canary_revision": "c", "aborted_revision": "a", "stable_revision": "s"}, "c"),
        ({"aborted_revision": "a", "stable_revision": "s"}, "a"),
        ({"stable_revision": "s"}, "s"),
        ({}, ""),
    ],
    ids=["the canary", "else the one given up", "else stable", "none before the first deploy"],
)
def test_the_revision_is_the_one_that_the_event_is_about(status, revision):
    assert told(**status).revision == revision


def test_an_id_tells_transitions_apart_and_not_repetitions():
    same = {told().id, told().id}
    other = {told(version="8").id, told(message="x").id, told(uid="u2").id}
    assert len(same) == 1
    assert len(same | other) == 4


def test_the_signature_is_that_of_rfc_4231_case_2():
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert signature(b"Jefe", b"what do ya want for nothing?") == f"sha256={expected}"


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, Delivery.DELIVERED), (204, Delivery.DELIVERED), (302, Delivery.FAILED),
     (400, Delivery.REFUSED), (401, Delivery.REFUSED), (404, Delivery.REFUSED),
     (408, Delivery.FAILED), (425, Delivery.FAILED), (429, Delivery.FAILED),
     (500, Delivery.FAILED), (503, Delivery.FAILED)],
)  # fmt: skip
def test_an_answer_is_judged_by_whose_fault_it_is(status, outcome):
    assert judge(status) is outcome


@pytest.mark.parametrize(
    ("attempts", "age_s", "wait_s"),
    [
        (1, 0.0, 1.0),
        (2, 1.0, 2.0),
        (4, 7.0, 8.0),
        (7, 100.0, 60.0),
        (5000, 100.0, 60.0),
        (7, 597.0, 3.0),
        (1, MOST_AGE_S, None),
        (9, 4000.0, None),
    ],
    ids=["first", "doubled", "doubled again", "at most a minute", "however often",
         "the last one is at ten minutes", "ten minutes old", "older"],
)  # fmt: skip
def test_it_waits_longer_each_time_until_the_event_is_too_old(attempts, age_s, wait_s):
    assert next_attempt_s(told(), attempts, AT_S + age_s) == wait_s


@given(st.floats(0, 5))
def test_attempts_end_after_ten_minutes_however_long_each_takes(attempt_s):
    now_s, attempts = AT_S + attempt_s, 1
    while (wait_s := next_attempt_s(told(), attempts, now_s)) is not None:
        now_s, attempts = now_s + wait_s + attempt_s, attempts + 1
    assert MOST_AGE_S <= now_s - AT_S <= MOST_AGE_S + 10
    assert 10 <= attempts <= 20
