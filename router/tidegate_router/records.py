"""The writer of request records: one buffered write per loop tick, never a wait.

Standard output may be a pipe that nobody empties. It is written to only while it can take
PIPE_BUF bytes (poll(2), pipe(7): such a write neither waits nor is torn), what comes meanwhile is
kept up to MAX_WAITING_BYTES, and what comes after that is dropped and counted.
"""

import asyncio
import os
import select
import time
from collections import deque
from dataclasses import dataclass, field
from zlib import crc32

from prometheus_client import Counter

from tidegate_router.core import record
from tidegate_router.core.faults import Outcome
from tidegate_router.core.record import Record
from tidegate_router.core.request import Route
from tidegate_router.lane import clock

MAX_WAITING_BYTES = 256 * 1024
_RETRY_S = 0.1


@dataclass(slots=True)
class Records:
    """The records of one process. `ratio` of the successes is written, every failure is."""

    dropped: Counter
    ratio: float = 0.01
    descriptor: int = 1  # standard output
    waiting: deque[bytes] = field(default_factory=deque)
    _limit: int = field(init=False)
    _poll: select.poll = field(init=False)
    _waiting_bytes: int = 0
    _flush_planned: bool = False

    def __post_init__(self) -> None:
        """Prepare the check of the hot path: one CRC and one comparison."""
        self._limit = int(self.ratio * record.CRC_RANGE)
        self._poll = select.poll()
        self._poll.register(self.descriptor, select.POLLOUT)

    def note(
        self,
        identity: str,
        route: Route | None,
        status: str,
        protocol: str,
        reason: str = "",
        trace: str = "",
        *,
        forced: bool = False,
    ) -> None:
        """Record the end of a request, if it is one of those that are.

        `status`: HTTP's number or gRPC's name. `reason`: DroppedReason's value where the router
        refused. `forced`: its trace is sampled. Without a route and a reason it is a probe.
        Call it once per request, after `settle` and before or after `finish`.
        """
        if (
            not reason
            and not forced
            and (route is None or route.last_outcome is Outcome.OK)
            and (route is None or crc32(identity.encode("latin-1", "replace")) >= self._limit)
        ):
            return
        if route is None and not reason:
            return
        self._keep(_record(identity, route, status, protocol, reason, trace))

    def sampled(self, identity: str) -> bool:
        """Whether a success of this id is recorded."""
        return record.sampled(identity, self.ratio)

    def _keep(self, found: Record) -> None:
        if self._waiting_bytes > MAX_WAITING_BYTES:
            self.dropped.inc()
            return
        line = found.line(_stamp(time.time()))
        self.waiting.append(line)
        self._waiting_bytes += len(line)
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits, as much as goes without a wait; the rest is tried again soon."""
        self._flush_planned = False
        while self.waiting:
            if not self._writable():
                self._flush_planned = True
                asyncio.get_running_loop().call_later(_RETRY_S, self.flush)
                return
            self._write(self._chunk())

    def _writable(self) -> bool:
        return any(events & select.POLLOUT for _, events in self._poll.poll(0))

    def _chunk(self) -> bytes:
        """Take whole lines, PIPE_BUF bytes at most."""
        lines = [self.waiting.popleft()]
        size = len(lines[0])
        while self.waiting and size + len(self.waiting[0]) <= select.PIPE_BUF:
            lines.append(self.waiting.popleft())
            size += len(lines[-1])
        self._waiting_bytes -= size
        return b"".join(lines)

    def _write(self, chunk: bytes) -> None:
        try:
            written = os.write(self.descriptor, chunk)
        except OSError:  # closed, full disk, or filled by another between the look and the write
            written = 0
        if written < len(chunk):
            self.dropped.inc(chunk[written:].count(b"\n"))


def _record(
    identity: str, route: Route | None, status: str, protocol: str, reason: str, trace: str
) -> Record:
    if route is not None:
        return record.of_route(
            identity, route, status, clock(), protocol=protocol, reason=reason, trace=trace
        )
    return Record(
        id=identity, protocol=protocol, status=status, outcome="refused", reason=reason, trace=trace
    )


def _stamp(now_s: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
    return f"{whole}.{int(now_s % 1 * 1000):03d}Z"
