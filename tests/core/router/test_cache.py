"""The response cache: what is one question, what is kept, who waits for whom."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_router.core.cache import (
    MAX_ANSWER_BYTES,
    MAX_FOLLOWERS,
    Follow,
    Hit,
    Lead,
    Question,
    ResponseCache,
    cache_key,
    forbids,
    names_itself,
)

QUESTION = Question(
    pool_uid="u", model="m", revision="r", version="", path="/v2/models/m/infer",
    header_length="", content_encoding="", accept_encoding="", body=b"{}",
)  # fmt: skip
TEXTS = [name for name in Question.__slots__ if name != "body"]


@pytest.mark.parametrize("field", TEXTS)
def test_each_part_makes_another_question(field):
    assert cache_key(replace(QUESTION, **{field: "other"})) != cache_key(QUESTION)


def test_the_body_makes_another_question():
    assert cache_key(replace(QUESTION, body=b"{ }")) != cache_key(QUESTION)


def test_equal_questions_have_one_key_of_256_bits():
    assert cache_key(replace(QUESTION)) == cache_key(QUESTION)
    assert len(cache_key(QUESTION)) == 32


@settings(deadline=None)
@given(st.lists(st.text(max_size=6), min_size=8, max_size=8), st.binary(max_size=6), st.data())
def test_parts_never_run_into_each_other(texts, body, data):
    one = Question(**dict(zip(TEXTS, texts, strict=True)), body=body)
    at = data.draw(st.integers(0, 6))
    moved = list(texts)
    moved[at], moved[at + 1] = texts[at] + texts[at + 1][:1], texts[at + 1][1:]
    other = Question(**dict(zip(TEXTS, moved, strict=True)), body=body)
    assert (cache_key(one) == cache_key(other)) is (one == other)


@pytest.mark.parametrize(
    ("values", "forbidden"),
    [
        pytest.param([], False, id="nothing-said"),
        pytest.param(["no-store"], True, id="no-store"),
        pytest.param(["max-age=60, NO-STORE"], True, id="among-others"),
        pytest.param(["max-age=60", "no-cache"], True, id="in-a-second-header"),
        pytest.param(["max-age=60"], False, id="something-else"),
        pytest.param(["no-storefront"], False, id="a-longer-word"),
    ],
)
def test_cache_control(values, forbidden):
    assert forbids(values) is forbidden


@pytest.mark.parametrize(
    ("body", "header_length", "named"),
    [
        pytest.param(b'{"inputs":[]}', "", False, id="without"),
        pytest.param(b'{"id":"7","inputs":[]}', "", True, id="with"),
        pytest.param(b'{"\\u0069d":"7"}', "", True, id="disguised"),
        pytest.param(b'{"inputs":[]}"id"', "13", False, id="in-the-tensors-only"),
        pytest.param(b'{"id":"7"}xx', "10", True, id="before-the-tensors"),
        pytest.param(b'{"id":"7"}', "x", True, id="with-a-length-that-is-none"),
    ],
)
def test_a_request_with_an_id_is_seen(body, header_length, named):
    assert names_itself(body, header_length) is named


class Told:
    """What a follower hears."""

    def __init__(self):
        self.heard = []

    def __call__(self, answer):
        self.heard.append(answer)


def kept(cache, key=b"k", answer="a", *, ttl_s=60.0, now_s=0.0, size_bytes=10):
    found = cache.look(key, now_s)
    assert isinstance(found, Lead)
    cache.fill(found.flight, answer, size_bytes, ttl_s, now_s)
    return found.flight


@pytest.mark.parametrize(
    ("now_s", "age_s"),
    [
        pytest.param(0.0, 0.0, id="at-once"),
        pytest.param(59.9, 59.9, id="until-just-before-its-end"),
        pytest.param(60.0, None, id="not-at-its-end"),
    ],
)
def test_an_answer_lives_for_its_ttl(now_s, age_s):
    cache = ResponseCache()
    kept(cache)
    found = cache.look(b"k", now_s)
    if age_s is None:
        assert isinstance(found, Lead)
        assert (len(cache), cache.size_bytes) == (0, 0)
    else:
        assert found == Hit("a", age_s)


def test_what_is_asked_now_is_followed_and_told_once():
    cache, one, two = ResponseCache(), Told(), Told()
    lead = cache.look(b"k", 0.0)
    for told in (one, two):
        found = cache.look(b"k", 0.0)
        assert isinstance(found, Follow)
        assert found.flight is lead.flight
        cache.join(found.flight, told)
    cache.fill(lead.flight, "a", 10, 60.0, 1.0)
    cache.fail(lead.flight)
    assert (one.heard, two.heard) == (["a"], ["a"])


def test_after_a_failure_followers_go_on_alone_and_the_next_one_leads():
    cache, told = ResponseCache(), Told()
    lead = cache.look(b"k", 0.0)
    cache.join(lead.flight, told)
    cache.fail(lead.flight)
    cache.fail(lead.flight)
    cache.fill(lead.flight, "late", 10, 60.0, 1.0)
    assert told.heard == [None]
    assert isinstance(cache.look(b"k", 1.0), Lead)
    assert len(cache) == 0


def test_a_flight_that_ended_does_not_end_the_one_after_it():
    cache, told = ResponseCache(), Told()
    first = cache.look(b"k", 0.0).flight
    cache.fail(first)
    second = cache.look(b"k", 0.0).flight
    cache.join(second, told)
    cache.fail(first)
    assert told.heard == []
    assert isinstance(cache.look(b"k", 0.0), Follow)


def test_who_leaves_hears_nothing_and_the_flight_goes_on():
    cache, gone, stays = ResponseCache(), Told(), Told()
    lead = cache.look(b"k", 0.0)
    number = cache.join(lead.flight, gone)
    cache.join(lead.flight, stays)
    cache.leave(lead.flight, number)
    cache.leave(lead.flight, number)
    cache.fill(lead.flight, "a", 10, 60.0, 1.0)
    assert (gone.heard, stays.heard) == ([], ["a"])


def test_a_flight_has_a_bounded_number_of_followers():
    cache = ResponseCache()
    lead = cache.look(b"k", 0.0)
    for _ in range(MAX_FOLLOWERS):
        assert isinstance(cache.look(b"k", 0.0), Follow)
        cache.join(lead.flight, lambda _: None)
    assert cache.look(b"k", 0.0) is None


def test_a_follower_of_a_higher_tier_raises_the_flights():
    cache, raised = ResponseCache(), []
    lead = cache.look(b"k", 0.0, 2)
    lead.flight.raise_tier = raised.append
    for rank, tier in ((2, "bronze"), (1, "silver"), (2, "bronze"), (0, "gold"), (0, "gold")):
        cache.join(lead.flight, lambda _: None, rank, tier)
    assert raised == ["silver", "gold"]


@pytest.mark.parametrize(
    ("size_bytes", "heard", "answers"),
    [
        pytest.param(MAX_ANSWER_BYTES, ["a"], 1, id="a-mebibyte"),
        pytest.param(MAX_ANSWER_BYTES + 1, [None], 0, id="one-byte-more"),
    ],
)
def test_large_answers_are_not_kept(size_bytes, heard, answers):
    cache, told = ResponseCache(), Told()
    lead = cache.look(b"k", 0.0)
    cache.join(lead.flight, told)
    cache.fill(lead.flight, "a", size_bytes, 60.0, 0.0)
    assert (told.heard, len(cache)) == (heard, answers)


def test_the_least_recently_used_goes_first():
    cache = ResponseCache(max_bytes=3 * (512 + 10))
    for key in (b"a", b"b", b"c"):
        kept(cache, key)
    assert isinstance(cache.look(b"a", 1.0), Hit)
    kept(cache, b"d")
    found = {key: isinstance(cache.look(key, 1.0), Hit) for key in (b"a", b"b", b"c", b"d")}
    assert found == {b"a": True, b"b": False, b"c": True, b"d": True}


def test_without_memory_nothing_is_kept_but_followers_are_answered():
    cache, told = ResponseCache(max_bytes=0), Told()
    lead = cache.look(b"k", 0.0)
    cache.join(lead.flight, told)
    cache.fill(lead.flight, "a", 10, 60.0, 0.0)
    assert (told.heard, len(cache), cache.size_bytes) == (["a"], 0, 0)


def test_what_nobody_asks_for_again_is_swept():
    cache = ResponseCache()
    for number in range(250):
        kept(cache, b"%d" % number, ttl_s=1.0 if number % 2 else 100.0)
    cache.sweep(2.0)
    assert cache.size_bytes == len(cache) * (512 + 10)
    assert len(cache) == 250 - 50, "the expired of the hundred oldest"


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_bytes_add_up_and_everybody_hears_once(seed):
    chance, cache = random.Random(seed), ResponseCache(max_bytes=5000)
    flights, followers, now_s = [], [], 0.0
    for _ in range(150):
        now_s += chance.random()
        match chance.randrange(4):
            case 0 | 1:
                found = cache.look(b"%d" % chance.randrange(8), now_s)
                if isinstance(found, Lead):
                    flights.append(found.flight)
                elif isinstance(found, Follow):
                    told = Told()
                    followers.append((told, found.flight))
                    cache.join(found.flight, told)
            case 2 if flights:
                flight = flights.pop(chance.randrange(len(flights)))
                size_bytes = chance.choice([10, 900, 6000, MAX_ANSWER_BYTES + 1])
                cache.fill(flight, "a", size_bytes, chance.random() * 5, now_s)
            case 3 if flights:
                cache.fail(flights.pop(chance.randrange(len(flights))))
        assert 0 <= cache.size_bytes <= 5000
        assert cache.size_bytes == sum(one.size_bytes for one in cache._kept.values())
        assert all(len(told.heard) == flight.landed for told, flight in followers)
        assert set(cache._flights.values()) == set(flights)
