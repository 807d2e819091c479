"""What one router knows of (worker, revision, model); outlives the table that named it."""

from dataclasses import dataclass, field
from enum import StrEnum

from tidegate_router.core.ewma import PeakLatency
from tidegate_router.core.series import Series
from tidegate_router.core.tally import Tally


class EjectedFor(StrEnum):
    """Why a worker gets no requests of a model for a while."""

    CONSECUTIVE = "consecutive"  # failures in a row
    RATIO = "ratio"  # succeeds too rarely, and its peers do not
    SILENT = "silent"  # work in flight, and no byte for too long


@dataclass(slots=True, eq=False)
class Ejection:
    """The state of one ejection, and how often it came lately."""

    reason: EjectedFor = EjectedFor.CONSECUTIVE
    since_s: float = 0.0
    trial_s: float = 0.0  # from then on one request tries it
    duration_s: float = 0.0
    times: int = 0  # in a row, without a good while between
    returned_s: float = 0.0
    trial: bool = False  # that one request is on its way


@dataclass(slots=True, eq=False)
class Slot:
    """Load, latency and health of one model on one worker, as this router saw them.

    `in_flight` counts attempts that the worker works on, `streams` those of them that may be
    silent for long. `heard_s`: the last sign of life, or when the first attempt in flight began.
    `shunned`: slow, or ejected and no panic: picks leave it out. `suspect`: the next requests that
    can be sent elsewhere find out whether its last fault was the first of many. Attempts that began
    before `valid_s`, when it was down or ejected, say nothing about its latency.
    """

    in_flight: int = 0
    latency: PeakLatency = field(default_factory=PeakLatency)
    streams: int = 0
    heard_s: float = 0.0
    ejected: bool = False
    shunned: bool = False
    slow: bool = False
    good_trials: int = 0  # in a row, while slow
    tried_s: float = 0.0
    suspect: bool = False
    valid_s: float = 0.0
    failures_in_row: int = 0
    faults_in_row: int = 0
    tally: Tally = field(default_factory=Tally)
    peers: Tally = field(default_factory=Tally)  # of all workers of the revision and model
    peers_before: tuple[int, int] = (0, 0)  # what they had when the failures in a row began
    own_mark: tuple[int, int] = (0, 0)  # (ok, failed) when the window's first failure came
    peers_mark: tuple[int, int] = (0, 0)
    ejection: Ejection = field(default_factory=Ejection)
    series: Series | None = None  # what its attempts are counted in, once there was one

    def take(self, now_s: float) -> None:
        """Count one more unary attempt in flight."""
        if self.in_flight == self.streams:
            self.heard_s = now_s
        self.in_flight += 1
