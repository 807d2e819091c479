"""The draw of the revision: exact in blocks of 100, blind to order and content."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_router.core import canary
from tidegate_router.core.canary import TicketDraw
from tidegate_router.core.request import Call


@given(st.integers(0, 100), st.integers(0, 2**32), st.integers(1, 700))
def test_the_canary_strays_by_at_most_25_at_every_prefix(weight, seed, requests):
    draw, uniform = TicketDraw(), random.Random(seed).random
    weights = {"stable": 100 - weight, "canary": weight}
    seen = 0
    for number in range(1, requests + 1):
        seen += draw.draw(weights, ["stable", "canary"], uniform) == "canary"
        assert abs(seen - weight * number / 100) <= 25


def test_each_block_of_100_holds_the_weights_exactly():
    draw, uniform = TicketDraw(), random.Random(3).random
    weights = {"stable": 93, "canary": 7}
    for _ in range(20):
        block = [draw.draw(weights, weights, uniform) for _ in range(100)]
        assert block.count("canary") == 7


def test_clients_that_alternate_see_the_same_share():
    draw, uniform = TicketDraw(), random.Random(5).random
    weights = {"stable": 50, "canary": 50}
    drawn = [draw.draw(weights, weights, uniform) for _ in range(20_000)]
    for client in (drawn[0::2], drawn[1::2]):
        assert client.count("canary") / len(client) == pytest.approx(0.5, abs=0.02)


def test_a_changed_weight_counts_from_the_next_request():
    draw, uniform = TicketDraw(), random.Random(1).random
    draw.draw({"stable": 50, "canary": 50}, ["stable", "canary"], uniform)
    after = {draw.draw({"stable": 100, "canary": 0}, ["stable", "canary"], uniform) for _ in "abc"}
    assert after == {"stable"}


def test_a_revision_of_weight_0_is_never_drawn_even_if_it_alone_has_workers():
    draw = TicketDraw()
    assert draw.draw({"new": 100, "old": 0}, ["old"], random.Random(1).random) == "new"


def test_a_revision_without_workers_gives_its_tickets_to_the_others():
    draw, uniform = TicketDraw(), random.Random(1).random
    drawn = {draw.draw({"a": 50, "b": 50}, ["b"], uniform) for _ in range(100)}
    assert drawn == {"b"}


@pytest.mark.parametrize("weights", [{}, {"a": 0}], ids=["none", "all-zero"])
def test_without_any_weight_nothing_is_drawn(weights):
    assert TicketDraw().draw(weights, ["a"], random.Random(1).random) is None


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 100), min_size=1),
)
def test_there_are_always_100_tickets_within_one_of_the_exact_share(weights):
    tickets = canary.tickets(weights)
    assert len(tickets) == 100
    for revision, weight in weights.items():
        assert abs(tickets.count(revision) - 100 * weight / sum(weights.values())) < 1


@given(st.lists(st.text(max_size=2), max_size=120), st.integers(0, 1000))
def test_shuffling_loses_and_adds_nothing(items, seed):
    assert sorted(canary.shuffled(items, random.Random(seed).random)) == sorted(items)


def test_without_a_ticket_the_weights_hold_on_average_and_0_is_0():
    uniform = random.Random(4).random
    weights = {"a": 30, "b": 70, "c": 0}
    drawn = [canary.pick_by_weight(weights, "abc", uniform) for _ in range(10_000)]
    assert drawn.count("a") / 10_000 == pytest.approx(0.3, abs=0.02)
    assert "c" not in drawn
    assert canary.pick_by_weight(weights, ["c"], uniform) is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"version": "1"}, id="with-a-version"),
        pytest.param({"call": Call.INQUIRY}, id="inquiries"),
    ],
)
def test_what_no_analysis_counts_spends_no_ticket(harness, make_worker, make_table, other):
    workers = [make_worker("a", revision="stable"), make_worker("b", revision="canary")]
    one = harness(make_table(*workers, weights={"stable": 90, "canary": 10}))
    uniform, drawn = random.Random(9).random, []
    for _ in range(100):
        while uniform() < 0.5:
            one.plan(**other)
        drawn.append(one.plan().revision)
    assert drawn.count("canary") == 10


@given(
    st.lists(st.tuples(st.integers(1, 99), st.integers(1, 150)), min_size=1, max_size=40),
    st.integers(0, 2**32),
)
def test_weights_that_change_in_mid_block_add_up_to_no_drift(phases, seed):
    """What a block that was cut short left undone is made good: the sum stays within one block."""
    draw, uniform = TicketDraw(), random.Random(seed).random
    seen, due = 0, 0.0
    for weight, requests in phases:
        weights = {"stable": 100 - weight, "canary": weight}
        for _ in range(requests):
            seen += draw.draw(weights, weights, uniform) == "canary"
            due += weight / 100
            assert abs(seen - due) <= 50


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_long_history_of_short_phases_stays_as_close_as_a_short_one(seed):
    draw, chance = TicketDraw(), random.Random(seed)
    seen, due, worst = 0, 0.0, 0.0
    for _ in range(4000):
        weight = chance.choice([40, 50, 60])
        weights = {"stable": 100 - weight, "canary": weight}
        for _ in range(chance.randint(1, 30)):
            seen += draw.draw(weights, weights, chance.random) == "canary"
            due += weight / 100
            worst = max(worst, abs(seen - due))
    assert worst <= 50


def test_the_draw_is_blind_to_what_asks_and_in_which_order(harness, make_worker, make_table):
    workers = [make_worker("a", revision="stable"), make_worker("b", revision="canary")]

    def drawn(requests):
        one = harness(make_table(*workers, weights={"stable": 75, "canary": 25}), seed=11)
        return [one.plan(**request).revision for request in requests]

    plain = [{}] * 300
    odd = [
        {
            "body_hash": str(n),
            "replayable": bool(n % 2),
            "call": Call.STREAM if n % 3 else Call.INFER,
        }
        for n in range(300)
    ]
    assert drawn(plain) == drawn(odd) == drawn(odd[::-1])


@given(st.integers(0, 100), st.integers(1, 4), st.integers(0, 2**32))
def test_several_routers_stray_by_25_each_at_most(weight, routers, seed):
    chance = random.Random(seed)
    draws = [TicketDraw() for _ in range(routers)]
    weights, seen = {"stable": 100 - weight, "canary": weight}, 0
    for number in range(1, 501):
        seen += chance.choice(draws).draw(weights, weights, chance.random) == "canary"
        assert abs(seen - weight * number / 100) <= 25 * routers
