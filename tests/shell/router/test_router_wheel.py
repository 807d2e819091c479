"""Deadlines by one timer: never early, not much late, and nothing is kept of what ended."""

import asyncio

import pytest

from tidegate_router.http1.wheel import TICK_S, Timed, Wheel
from tidegate_router.lane import clock


class Noting(Timed):
    def __init__(self, wheel, name, called):
        super().__init__(wheel)
        self.name, self.called = name, called

    def on_due(self, now_s):
        self.called.append((self.name, now_s))


@pytest.fixture
async def wheel():
    one = Wheel()
    one.start()
    yield one
    one.stop()


async def until(called, count):
    for _ in range(1000):
        if len(called) >= count:
            return
        await asyncio.sleep(TICK_S / 4)  # polls
    raise TimeoutError


async def test_each_is_called_once_and_never_before_its_time(wheel):
    called, start_s = [], clock()
    due = {name: start_s + name * 0.013 for name in range(20)}
    for name, due_s in due.items():
        Noting(wheel, name, called).set_due(due_s)
    await until(called, 20)
    await asyncio.sleep(3 * TICK_S)  # a second call would come now
    assert sorted(name for name, _ in called) == list(range(20))
    assert all(now_s >= due[name] for name, now_s in called)


async def test_a_deadline_that_moved_back_is_called_at_the_later_time(wheel):
    called, one = [], None
    one = Noting(wheel, "a", called)
    first_s = clock() + 0.03
    one.set_due(first_s)
    one.set_due(first_s + 0.15)
    await until(called, 1)
    assert called[0][1] >= first_s + 0.15


async def test_a_deadline_that_moved_forward_is_called_at_the_earlier_time(wheel):
    called = []
    one = Noting(wheel, "a", called)
    one.set_due(clock() + 60)
    one.set_due(clock() + 0.03)
    await until(called, 1)
    assert sum(len(slot) for slot in wheel._slots.values()) == 0


async def test_what_was_forgotten_is_neither_called_nor_kept(wheel):
    called = []
    gone, other = Noting(wheel, "gone", called), Noting(wheel, "other", called)
    gone.set_due(clock() + 0.02)
    other.set_due(clock() + 0.08)
    wheel.forget(gone)
    await until(called, 1)
    assert [name for name, _ in called] == ["other"]
    assert sum(len(slot) for slot in wheel._slots.values()) == 0


async def test_a_deadline_in_the_past_is_called_soon(wheel):
    called = []
    Noting(wheel, "a", called).set_due(clock() - 5)
    await until(called, 1)
