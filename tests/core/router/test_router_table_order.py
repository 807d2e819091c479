"""Tables are ordered by (pool UID, sequence); a lower one waits 30 s after a re-list."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.routetable import PoolIdentity, RoutedWorker, RouteTableSpec, split
from tidegate_router.core.table import RESET_AFTER_S, TableBook, Verdict

KEY = ("ns", "p")


def test_a_higher_sequence_replaces_a_lower_one(make_table):
    book = TableBook()
    assert book.offer(KEY, make_table(sequence=5)) == {"u1"}
    assert book.offer(KEY, make_table(sequence=6)) == {"u1"}
    assert book.applied["u1"].sequence == 6


@pytest.mark.parametrize("sequence", [0, 4, 5], ids=["zero", "lower", "same"])
def test_what_is_not_higher_changes_nothing(make_table, sequence):
    book = TableBook()
    book.offer(KEY, make_table(sequence=5))
    assert book.offer(KEY, make_table(sequence=sequence)) == set()
    assert book.applied["u1"].sequence == 5


def test_verdicts_name_what_would_happen(make_table):
    book = TableBook()
    book.offer(KEY, make_table(sequence=5))
    assert book.judge(make_table(sequence=4)) is Verdict.LOWER
    assert book.judge(make_table(sequence=5)) is Verdict.SAME
    assert book.judge(make_table(sequence=6)) is Verdict.APPLIED


def test_a_recreated_pool_starts_anew_under_its_own_uid(make_table):
    book = TableBook()
    book.offer(KEY, make_table(uid="old", sequence=900))
    assert book.offer(KEY, make_table(uid="new", sequence=1)) == {"old", "new"}
    assert set(book.applied) == {"new"}


def test_a_lower_sequence_is_accepted_30_s_after_a_relist_showed_it(make_table):
    book = TableBook()
    book.offer(KEY, make_table(sequence=900))
    assert book.relist({KEY: make_table(sequence=7)}, now_s=100.0) == set()
    assert book.tick(100.0 + RESET_AFTER_S - 0.1) == set()
    assert book.tick(100.0 + RESET_AFTER_S) == {"u1"}
    assert (book.applied["u1"].sequence, book.resets) == (7, 1)


def test_a_lower_sequence_of_a_watch_event_alone_is_never_accepted(make_table):
    book = TableBook()
    book.offer(KEY, make_table(sequence=900))
    book.offer(KEY, make_table(sequence=7))
    assert book.tick(1e9) == set()
    assert book.applied["u1"].sequence == 900


def test_the_wait_counts_from_the_first_relist_and_takes_the_newest_document(make_table):
    book = TableBook()
    book.offer(KEY, make_table(sequence=900))
    book.relist({KEY: make_table(sequence=7)}, now_s=100.0)
    book.offer(KEY, make_table(sequence=8))
    book.relist({KEY: make_table(sequence=9)}, now_s=120.0)
    assert book.tick(130.0) == {"u1"}
    assert book.applied["u1"].sequence == 9


def test_a_higher_sequence_ends_the_wait(make_table):
    book = TableBook()
    book.offer(KEY, make_table(sequence=900))
    book.relist({KEY: make_table(sequence=7)}, now_s=100.0)
    book.offer(KEY, make_table(sequence=901))
    assert book.tick(200.0) == set()
    assert (book.applied["u1"].sequence, book.resets) == (901, 0)


def test_a_relist_drops_what_is_gone_and_keeps_no_ghosts(make_table):
    book = TableBook()
    book.offer(KEY, make_table(sequence=1))
    book.offer(("ns", "q"), make_table(uid="u2", name="q"))
    assert book.relist({KEY: make_table(sequence=1)}, now_s=1.0) == {"u2"}
    assert set(book.applied) == {"u1"}


def test_a_deletion_takes_the_pool_along(make_table):
    book = TableBook()
    book.offer(KEY, make_table())
    assert book.withdraw(KEY) == {"u1"}
    assert book.withdraw(KEY) == set()
    assert book.applied == {}


def test_a_table_in_parts_is_applied_when_the_last_part_is_there(make_worker, make_table):
    workers = [make_worker(f"w{number}") for number in range(6)]
    index, parts = split(make_table(*workers, sequence=3), max_bytes=900)
    assert len(parts) > 1
    book = TableBook()
    assert book.offer(KEY, index) == set()
    *early, last = parts.items()
    for name, part in early:
        assert book.offer(("ns", name), part) == set()
    assert book.offer(("ns", last[0]), last[1]) == {"u1"}
    assert [worker.id for worker in book.applied["u1"].workers] == [w.id for w in workers]


def test_an_incomplete_set_leaves_the_last_good_table(make_worker, make_table):
    book = TableBook()
    book.offer(KEY, make_table(make_worker("a"), sequence=2))
    workers = [make_worker(f"w{number}") for number in range(6)]
    index, parts = split(make_table(*workers, sequence=3), max_bytes=900)
    name, part = next(iter(parts.items()))
    assert book.offer(("ns", name), part) == set()
    assert book.offer(KEY, index) == set()
    assert book.judge(index) is Verdict.INCOMPLETE
    assert [worker.id for worker in book.applied["u1"].workers] == ["a"]


def test_a_part_with_another_content_does_not_count(make_worker, make_table):
    workers = [make_worker(f"w{number}") for number in range(6)]
    index, parts = split(make_table(*workers, sequence=3), max_bytes=900)
    book = TableBook()
    for name, part in parts.items():
        book.offer(("ns", name), part.model_copy(update={"workers": part.workers[:-1]}))
    assert book.offer(KEY, index) == set()
    assert book.applied == {}


def test_parts_of_another_namespace_do_not_count(make_worker, make_table):
    workers = [make_worker(f"w{number}") for number in range(6)]
    index, parts = split(make_table(*workers, sequence=3), max_bytes=900)
    book = TableBook()
    for name, part in parts.items():
        book.offer(("elsewhere", name), part)
    assert book.offer(KEY, index) == set()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_events_in_any_order_leave_the_highest_sequence(sequences):
    pool = PoolIdentity(namespace="ns", name="p", uid="u1")
    book = TableBook()
    for sequence in sequences:
        book.offer(KEY, RouteTableSpec(pool=pool, sequence=sequence))
    assert book.applied["u1"].sequence == max(sequences)


@given(st.integers(0, 10_000))
def test_parts_in_any_order_give_the_same_table(seed):
    workers = [RoutedWorker(id=f"w{n}", address="10.0.0.1", revision="r") for n in range(9)]
    pool = PoolIdentity(namespace="ns", name="p", uid="u1")
    index, parts = split(RouteTableSpec(pool=pool, sequence=1, workers=workers), max_bytes=600)
    documents = [(KEY, index), *((("ns", name), part) for name, part in parts.items())]
    random.Random(seed).shuffle(documents)
    book = TableBook()
    for key, spec in documents:
        book.offer(key, spec)
    assert [worker.id for worker in book.applied["u1"].workers] == [w.id for w in workers]


def test_a_table_that_cannot_be_read_keeps_its_pool_and_others_go(make_table):
    book = TableBook()
    book.restore([make_table(sequence=5), make_table(uid="u2", name="q")])
    assert book.relist({}, now_s=0.0, unreadable={KEY}) == {"u2"}
    assert book.applied["u1"].sequence == 5
