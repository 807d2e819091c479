"""Analysis windows: what is remembered of them, and how they stand in status.

Losing the memory is safe: the open window starts anew, closed ones are read back from status.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tidegate_api.rollout import CheckResult, Verdict, WindowStatus
from tidegate_operator.core.instants import rfc3339_micro
from tidegate_operator.core.rollout.readings import Ledger, Totals

MOST_WINDOWS = 10
_CLOCK_GRAIN_S = 1e-3  # status keeps microseconds; a window opened with its step belongs to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Which step of which canary windows belong to."""

    stable: str = ""
    canary: str = ""
    index: int = 0
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Reached:
    """The highest weight that routers verified since the canary last had none."""

    weight: int
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWindow:
    """A window that data still goes into."""

    opened_s: float
    next_s: float  # end of the present interval
    base: Totals  # the ledger when it opened
    verdict: Verdict = "Inconclusive"
    checks: tuple[CheckResult, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisMemory:
    """Goes into `assess` and comes out of it changed."""

    step: Step = field(default_factory=Step)
    reached: Reached | None = None
    ledger: Ledger | None = None
    base: Totals | None = None  # the ledger when the step's data began
    window: OpenWindow | None = None
    closed: tuple[WindowStatus, ...] | None = None  # newest last; None: not yet read from status
    verdict: Verdict | None = None  # of the last judgement
    message: str = ""


def close(window: OpenWindow, step: int, now_s: float) -> WindowStatus:
    """Return the window as status keeps it for good."""
    return _shown(window, step, rfc3339_micro(now_s))


def show(
    closed: Sequence[WindowStatus], window: OpenWindow | None, step: int
) -> tuple[WindowStatus, ...]:
    """Return what status shows, the open window last."""
    present = () if window is None else (_shown(window, step, None),)
    return (*closed, *present)[-MOST_WINDOWS:]


def _shown(window: OpenWindow, step: int, ended_at: str | None) -> WindowStatus:
    return WindowStatus(
        step=step,
        started_at=rfc3339_micro(window.opened_s),
        ended_at=ended_at,
        verdict=window.verdict,
        checks=list(window.checks),
    )


def stored(windows: Sequence[WindowStatus]) -> tuple[WindowStatus, ...]:
    """Return the closed windows of a status; an open one lost its data with the memory."""
    return tuple(item for item in windows if item.ended_at)[-MOST_WINDOWS:]


def of_step(windows: Sequence[WindowStatus], step: Step) -> list[WindowStatus]:
    """Return the windows of this step; those of an earlier canary's same step are older."""
    earliest_s = step.since_s - _CLOCK_GRAIN_S
    return [
        item
        for item in windows
        if item.step == step.index and (_epoch_s(item.started_at) or 0.0) >= earliest_s
    ]


def _epoch_s(instant: str) -> float | None:
    try:
        return datetime.fromisoformat(instant).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def has_passed(windows: Sequence[WindowStatus]) -> bool:
    """Whether a window passed and none that closed after it failed."""
    verdicts = [item.verdict for item in windows if item.verdict != "Inconclusive"]
    return bool(verdicts) and verdicts[-1] == "Pass"
