"""One run: a client, a loop, progress, and what stops it."""

import asyncio
import hashlib
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import uvloop

from tidegate_cli.core.loadtest.result import Demands, Result, Run, result_of
from tidegate_cli.core.loadtest.schedule import Arrivals, Limits, intended_times_s
from tidegate_cli.loadtest.loops import ClosedLoop, Course, Loop, OpenLoop
from tidegate_cli.loadtest.progress import Progress
from tidegate_cli.loadtest.shot import Client, Payload

_LOOK_S = 0.25
_SWEEPS = 20  # in a timeout: one is noticed at most 5 % late


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do. `rate` in requests a second makes an open loop; None: a closed one."""

    target: str
    protocol: str
    payloads: list[Payload]
    rate: float | None
    arrivals: Arrivals
    seed: int
    connections: int  # at most; in a closed loop the number of its clients
    limits: Limits
    timeout_s: float
    demands: Demands

    @property
    def words(self) -> str:
        """The load in words."""
        limits = self.limits
        load = f"{self.connections} at once" if self.rate is None else f"{self.rate:g} req/s"
        kind = f" {self.arrivals}" if self.rate is not None else ""
        until = "" if limits.duration_s is None else f" for {limits.duration_s:g} s"
        count = "" if limits.count is None else f", {limits.count} requests"
        return f"{load}{kind}{until}{count} over {self.protocol}"


def run(plan: Plan, make: Callable[[], Client]) -> Result:
    """Run a plan on a loop of its own; Ctrl-C ends it early with what there is.

    `make` is called inside that loop.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(plan, make))


async def _run(plan: Plan, make: Callable[[], Client]) -> Result:
    client = make()
    await client.open(plan.connections)
    course = Course(
        client=client,
        payloads=cycle(plan.payloads),
        limits=plan.limits,
        timeout_s=plan.timeout_s,
    )
    loop = _loop(plan, course)
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    began = time.process_time(), time.monotonic()
    began_at_s = time.time()
    loop.start()
    with Progress(plan.limits) as progress:
        await _last(plan, loop, progress, interrupted)
    used_s, wall_s = time.process_time() - began[0], time.monotonic() - began[1]
    unfinished = course.in_flight
    loop.stop()
    await client.close()
    return result_of(
        Run(
            target=plan.target,
            load=plan.words,
            began_at_s=began_at_s + plan.limits.warmup_s,
            answers=tuple(
                _digest(one.expected) for one in plan.payloads if one.expected is not None
            ),
            counted_s=course.counted_s,
            tally=course.tally,
            generator_cpu_ratio=used_s / wall_s,
            unfinished=unfinished,
            interrupted=interrupted.is_set(),
            demands=plan.demands,
        )
    )


def _loop(plan: Plan, course: Course) -> Loop:
    if plan.rate is None:
        return ClosedLoop(course, plan.connections)
    uniform = random.Random(plan.seed).random  # noqa: S311  # arrivals, not secrets
    return OpenLoop(course, intended_times_s(plan.rate, plan.arrivals, plan.limits, uniform))


async def _last(plan: Plan, loop: Loop, progress: Progress, interrupted: asyncio.Event) -> None:
    """Wait for the run's end or Ctrl-C; meanwhile give up what is overdue and tell."""
    course, told_s = loop.course, 0.0
    every_s = min(_LOOK_S, plan.timeout_s / _SWEEPS)
    ends = [asyncio.ensure_future(event.wait()) for event in (course.done, interrupted)]
    while True:
        done, _ = await asyncio.wait(ends, timeout=every_s, return_when=asyncio.FIRST_COMPLETED)
        if done:
            break
        now_s = time.monotonic()
        if now_s > course.started_s + plan.limits.end_s + 2 * plan.timeout_s:
            break  # each answer is overdue: a client that lost one must not hold the run
        loop.sweep(now_s)
        if now_s - told_s >= _LOOK_S:
            told_s = now_s
            progress.tell(course.tally, now_s - course.started_s)
    for waiting in ends:
        waiting.cancel()


def _digest(answer: bytes) -> str:
    return hashlib.sha256(answer).hexdigest()
