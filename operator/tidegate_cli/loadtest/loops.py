"""The two ways to drive a client: a closed loop waits for answers, an open loop never does."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from tidegate_cli.core.loadtest.outcome import Outcome
from tidegate_cli.core.loadtest.schedule import Limits
from tidegate_cli.core.loadtest.tally import Answered, Tally
from tidegate_cli.loadtest.clock import FineTimer, LoopTimer, timer
from tidegate_cli.loadtest.shot import Client, Payload, Shot

_OVERDUE = Answered(Outcome.TIMEOUT, "timeout before it could be sent")


@dataclass(slots=True, kw_only=True)
class Course:
    """The state of a run that both loops share. Times are those of `time.monotonic`."""

    client: Client
    payloads: Iterator[Payload]
    limits: Limits
    timeout_s: float
    tally: Tally = field(default_factory=Tally)
    started_s: float = 0.0
    ended_s: float = 0.0  # of the last answer that counts
    in_flight: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self, shot: Shot, answered: Answered) -> None:
        """Count an answer, unless its request was part of the warm-up."""
        now_s = time.monotonic()
        counted_from_s = self.started_s + self.limits.warmup_s
        if shot.intended_s >= counted_from_s:
            self.ended_s = now_s
            self.tally.add(now_s - counted_from_s, now_s - shot.intended_s, answered)

    @property
    def counted_s(self) -> float:
        """Seconds from the end of the warm-up to the last answer that counts."""
        return max(0.0, self.ended_s - self.started_s - self.limits.warmup_s)


class Loop(Protocol):
    """Drives a client until the limits are reached or it is told to stop."""

    course: Course

    def start(self) -> None:
        """Begin to send."""

    def stop(self) -> None:
        """Send nothing more."""

    def sweep(self, now_s: float) -> None:
        """Give up what waits longer than the timeout."""


class ClosedLoop:
    """A fixed number of clients; each sends its next request when it has an answer."""

    def __init__(self, course: Course, concurrency: int) -> None:
        self.course = course
        self._concurrency = concurrency
        self._left = course.limits.count
        self._stopped = False
        course.client.finished = self._finished

    def start(self) -> None:
        """Send the first request of every client."""
        self.course.started_s = time.monotonic()
        for _ in range(self._concurrency):
            self._next()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True

    def sweep(self, now_s: float) -> None:
        """Give up what waits longer than the timeout."""
        self.course.client.sweep(now_s)

    def _next(self) -> None:
        course, now_s = self.course, time.monotonic()
        if self._stopped or now_s >= course.started_s + course.limits.end_s or self._left == 0:
            if course.in_flight == 0:
                course.done.set()
            return
        if self._left is not None and course.limits.counts(now_s - course.started_s):
            self._left -= 1
        course.in_flight += 1
        course.client.send(Shot(next(course.payloads), now_s))

    def _finished(self, shot: Shot, answered: Answered) -> None:
        self.course.in_flight -= 1
        self.course.count(shot, answered)
        self._next()


class OpenLoop:
    """Requests at intended times, whatever the answers do; what finds no connection waits."""

    def __init__(self, course: Course, times_s: Iterator[float]) -> None:
        self.course = course
        self._times_s = times_s
        self._waiting: deque[Shot] = deque()
        self._due_s: float | None = None
        self._timer: FineTimer | LoopTimer | None = None
        course.client.finished = self._finished

    def start(self) -> None:
        """Send the first request."""
        self.course.started_s = time.monotonic()
        self._timer = timer(asyncio.get_running_loop(), self._tick)
        self._advance()
        self._tick()

    def stop(self) -> None:
        """Send nothing more."""
        self._due_s = None
        self._waiting.clear()
        self._close()

    def sweep(self, now_s: float) -> None:
        """Give up what waits longer than the timeout, sent or not."""
        oldest_s = now_s - self.course.timeout_s
        while self._waiting and self._waiting[0].intended_s < oldest_s:
            self._finished(self._waiting.popleft(), _OVERDUE)
        self.course.client.sweep(now_s)

    def _advance(self) -> None:
        at_s = next(self._times_s, None)
        self._due_s = None if at_s is None else self.course.started_s + at_s

    def _tick(self) -> None:
        now_s = time.monotonic()
        while self._due_s is not None and self._due_s <= now_s:
            self.course.in_flight += 1
            self._waiting.append(Shot(next(self.course.payloads), self._due_s))
            self._advance()
        self._send_waiting()
        if self._due_s is not None and self._timer is not None:
            self._timer.at(self._due_s)

    def _send_waiting(self) -> None:
        course = self.course
        while self._waiting and course.client.send(self._waiting[0]):
            shot = self._waiting.popleft()
            if course.limits.counts(shot.intended_s - course.started_s):
                course.tally.late.add((shot.sent_s - shot.intended_s) * 1e6)

    def _finished(self, shot: Shot, answered: Answered) -> None:
        self.course.in_flight -= 1
        self.course.count(shot, answered)
        self._send_waiting()
        if self.course.in_flight == 0 and self._due_s is None:
            self._close()
            self.course.done.set()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None
