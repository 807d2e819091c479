"""A timer of microseconds: an event loop's own rounds to a millisecond, which is most of a p50."""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = 0o2004000
_ABSOLUTE = 1
_SOON_S = 1e-6


class _Spec(ctypes.Structure):
    """Linux's itimerspec: the interval, then the first expiry, each in seconds and nanoseconds."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("at_s", ctypes.c_long),
        ("at_ns", ctypes.c_long),
    )


class LoopTimer:
    """The event loop's timer, for systems without timerfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop, self._call = loop, call

    def at(self, when_s: float) -> None:
        """Call at a time of `time.monotonic`."""
        self._loop.call_later(max(0.0, when_s - time.monotonic()), self._call)

    def close(self) -> None:
        """Nothing is held."""


class FineTimer:
    """One timerfd (Linux timerfd_create(2)); Python has it from 3.13 on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop, self._call = loop, call
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._expired)

    def at(self, when_s: float) -> None:
        """Call at a time of `time.monotonic`; at once for one that is past."""
        due_s = max(when_s, _SOON_S)  # zero would disarm it
        whole_s = int(due_s)
        spec = _Spec(0, 0, whole_s, int((due_s - whole_s) * 1e9))
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(spec), None)

    def close(self) -> None:
        """Give the descriptor back."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _expired(self) -> None:
        with suppress(BlockingIOError):  # set anew since
            os.read(self._fd, 8)
            self._call()


def timer(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> FineTimer | LoopTimer:
    """Return the finest timer of this system; `call` is called once for each `at`."""
    return FineTimer(loop, call) if sys.platform == "linux" else LoopTimer(loop, call)
