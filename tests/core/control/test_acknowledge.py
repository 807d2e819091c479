import pytest

from tidegate_api.routerstate import AppliedTable, RouterState
from tidegate_operator.core.acknowledge import acknowledge
from tidegate_operator.core.observation import RouterMember

NOW_S = 1000.0


def member(name="r", sequence=None, *, uid="u", synced=True, **more):
    tables = (
        [AppliedTable(namespace="ml", pool="p", uid=uid, applied_sequence=sequence, age_s=0.0)]
        if sequence is not None
        else []
    )
    state = RouterState(instance=name, synced=synced, tables=tables)
    base = {"scraped_s": NOW_S, "state": state}
    return RouterMember(name=name, address="10.0.0.1", **{**base, **more})


@pytest.mark.parametrize(
    ("routers", "sequence", "expected"),
    [
        pytest.param([], 5, True, id="no-routers-means-effective-at-once"),
        pytest.param([member(sequence=5)], 5, True, id="the-very-sequence-is-enough"),
        pytest.param([member(sequence=6)], 5, True, id="a-newer-one-includes-it"),
        pytest.param([member(sequence=4)], 5, False, id="an-older-one-does-not"),
        pytest.param([member(sequence=5), member("b", 4)], 5, False, id="every-member-counts"),
        pytest.param([member(sequence=9, uid="old")], 5, False, id="another-uid-is-another-pool"),
        pytest.param([member(sequence=9, synced=False)], 5, False, id="a-snapshot-is-unsynced"),
        pytest.param([member()], 5, False, id="a-router-without-the-table"),
        pytest.param(
            [member(state=None, scraped_s=None, error="refused")], 5, False, id="never-scraped"
        ),
        pytest.param(
            [member(sequence=5, left_s_ago=9.9), member("b", 3, left_s_ago=9.9)],
            5,
            False,
            id="one-that-left-a-moment-ago-is-waited-for",
        ),
        pytest.param(
            [member(sequence=5), member("b", 3, left_s_ago=10.0)],
            5,
            True,
            id="one-that-left-10-s-ago-is-not",
        ),
        pytest.param(
            [member(sequence=5, scraped_s=NOW_S - 60, error="timeout")],
            5,
            True,
            id="an-old-proof-stays-a-proof",
        ),
    ],
)
def test_acknowledged(routers, sequence, expected):
    assert acknowledge(routers, "u", NOW_S).acknowledged(sequence) is expected


@pytest.mark.parametrize(
    ("router", "expected"),
    [
        pytest.param(member(scraped_s=NOW_S - 9.9, error="x"), (), id="silent-for-less-than-10-s"),
        pytest.param(member(scraped_s=NOW_S - 10, error="x"), ("r",), id="silent-for-10-s"),
        pytest.param(member(scraped_s=NOW_S - 60), (), id="old-but-no-try-failed"),
        pytest.param(
            member(scraped_s=None, state=None, error="x", seen_s=NOW_S - 3),
            (),
            id="new-and-not-yet-answering",
        ),
        pytest.param(
            member(scraped_s=None, state=None, error="x", seen_s=NOW_S - 30),
            ("r",),
            id="never-answered-in-30-s",
        ),
    ],
)
def test_unreachable_is_silence_of_10_s(router, expected):
    assert acknowledge([router], "u", NOW_S).unreachable == expected


def test_those_behind_are_named():
    seen = acknowledge([member("a", 5), member("b", 3), member("c", 3)], "u", NOW_S)
    assert seen.behind == ("b", "c")
    assert seen.applied == 3
    assert seen.members == 3
