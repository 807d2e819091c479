import asyncio
import time
from pathlib import Path

from tidegate_cli.loadtest.clock import FineTimer, LoopTimer, timer


def descriptors():
    return len([*Path("/proc/self/fd").iterdir()])


async def calls(kind, delays_s):
    """Set a timer for each delay in turn; return how late each call came."""
    loop, late_s = asyncio.get_running_loop(), []
    called = asyncio.Event()
    one = kind(loop, called.set)
    for delay_s in delays_s:
        due_s = time.monotonic() + delay_s
        one.at(due_s)
        await called.wait()
        late_s.append(time.monotonic() - due_s)
        called.clear()
    one.close()
    return late_s


async def test_a_fine_timer_never_calls_early():
    late_s = await calls(FineTimer, [0.0001, 0.0015, 0.003] * 5)
    assert min(late_s) >= 0


async def test_a_time_that_is_past_is_called_at_once():
    assert len(await calls(FineTimer, [-1.0, -1e9])) == 2


async def test_a_timer_set_anew_calls_once():
    loop, count = asyncio.get_running_loop(), []
    done = asyncio.Event()
    one = FineTimer(loop, lambda: (count.append(1), done.set()))
    now_s = time.monotonic()
    one.at(now_s + 60)
    one.at(now_s + 0.005)
    await done.wait()
    one.close()
    assert len(count) == 1


async def test_systems_without_timerfd_have_the_loops_timer():
    assert len(await calls(LoopTimer, [0.001, -1.0])) == 2


async def test_a_closed_timer_gives_its_descriptor_back():
    before = descriptors()
    one = timer(asyncio.get_running_loop(), lambda: None)
    one.at(time.monotonic() + 60)
    one.close()
    assert descriptors() == before
