"""The work queue: each key once, never twice at a time, later again when asked meanwhile."""

import asyncio
from collections import Counter

import pytest

from tidegate_operator.workqueue import WorkQueue


class Work:
    """Work that waits at a gate and records what runs."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.running = Counter()
        self.most = Counter()
        self.done = []

    async def __call__(self, key):
        self.running[key] += 1
        self.most[key] = max(self.most[key], self.running[key])
        await self.gate.wait()
        self.running[key] -= 1
        self.done.append(key)


@pytest.fixture
async def work():
    return Work()


@pytest.fixture
async def queue(background, work):
    made = WorkQueue()
    background(made.run(work, 4))
    return made


async def test_a_key_asked_for_many_times_is_worked_on_once(queue, work, until):
    for _ in range(10):
        queue.add("a")
    assert len(queue) == 1
    work.gate.set()
    await until(lambda: work.done, "the work")
    queue.add("b")
    await until(lambda: "b" in work.done, "the work after it")
    assert work.done == ["a", "b"]


async def test_a_key_is_never_worked_on_twice_at_a_time(queue, work, until):
    queue.add("a")
    await until(lambda: work.running["a"], "the work to begin")
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    await until(lambda: work.running["b"], "another key beside it")
    assert work.running["a"] == 1
    work.gate.set()
    await until(lambda: len(work.done) == 3, "both keys and one repetition")
    assert work.most["a"] == 1
    assert sorted(work.done) == ["a", "a", "b"]


async def test_no_more_keys_are_worked_on_at_a_time_than_allowed(queue, work, until):
    for number in range(9):
        queue.add(number)
    await until(lambda: sum(work.running.values()) == 4, "four at a time")
    assert len(queue) == 5
    work.gate.set()
    await until(lambda: len(work.done) == 9, "all of them")


async def test_a_delayed_key_comes_in_its_time_and_an_earlier_wish_wins(queue, work, until):
    work.gate.set()
    queue.add_after("a", 60)
    queue.add_after("a", 0.05)
    queue.add_after("a", 60)
    assert queue.armed("a")
    await until(lambda: work.done == ["a"], "the earliest wish")
    assert not queue.armed("a"), "the later wishes were for the same key"


async def test_a_key_worked_on_early_does_not_come_again_at_its_old_time(queue, work, until):
    work.gate.set()
    queue.add_after("a", 0.1)
    queue.add("a")
    await until(lambda: work.done == ["a"], "the early work")
    assert not queue.armed("a")


async def test_a_key_that_waits_runs_or_has_a_timer_counts_as_armed(queue, work, until):
    assert not queue.armed("a")
    queue.add("a")
    assert queue.armed("a")
    await until(lambda: work.running["a"], "the work to begin")
    assert queue.armed("a")
    work.gate.set()
    await until(lambda: work.done, "the work")
    await until(lambda: not queue.armed("a"), "nothing left to do")


async def test_the_longest_wait_is_seen(queue, work, until):
    assert queue.oldest_wait_s == 0
    for number in range(5):
        queue.add(number)
    await until(lambda: queue.oldest_wait_s > 0.05, "the fifth to have waited")
    work.gate.set()
    await until(lambda: len(work.done) == 5, "all of them")
    assert queue.oldest_wait_s == 0


async def test_an_error_of_the_work_ends_the_queue():
    queue = WorkQueue()

    async def broken(_key):
        raise LookupError("a defect")

    queue.add("a")
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(queue.run(broken, 2), 5)
    assert caught.group_contains(LookupError, match="a defect")
