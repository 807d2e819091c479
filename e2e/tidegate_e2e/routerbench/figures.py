"""What rounds add up to: medians with their spread, and ratios that say what they rest on."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tidegate_e2e.routerbench.load import Measured
from tidegate_e2e.routerbench.machine import LOAD_BOUND_RATIO

_SATURATED_RATIO = 0.85  # of the router's core, in a closed loop of many connections
Scalar = str | int | float | bool | None
Json = Scalar | list["Json"] | dict[str, "Json"]


@dataclass(slots=True)
class Series:
    """One router's measurements, a list for each round (ours has two in each: A/B/A)."""

    rounds: list[list[Measured]] = field(default_factory=list)

    def values(self, name: str) -> list[float]:
        """Return a figure of each round: the mean of its measurements."""
        found = [[getattr(one, name) for one in measured] for measured in self.rounds]
        return [statistics.fmean(values) for values in found if None not in values]

    @property
    def load_bound(self) -> bool:
        """Whether the load core, not the router, may be what was measured."""
        return statistics.median(self.values("load_use")) > LOAD_BOUND_RATIO

    @property
    def disturbed(self) -> bool:
        """Whether neither core was busy with us: something else on the machine had them."""
        uses = self.values("router_use")
        return bool(uses) and not self.load_bound and statistics.median(uses) < _SATURATED_RATIO

    def document(self, *, closed_loop_of_many: bool = True) -> dict[str, Json]:
        """Return median, least and most of every figure.

        One connection alone never saturates a router: nothing can be told from a core's use then.
        """
        names = (
            "rate", "p50_ms", "p99_ms", "failed", "router_cpu_us", "router_use", "load_use",
        )  # fmt: skip
        found: dict[str, Json] = {"load_bound": self.load_bound}
        if closed_loop_of_many:
            found["disturbed"] = self.disturbed
        for name in names:
            if values := self.values(name):
                found[name] = spread(values)
        return found


def spread(values: Sequence[float]) -> dict[str, Json]:
    """Return median, least and most."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratio of each round."""
    return [one / other for one, other in zip(over, under, strict=True) if other]


def throughput_ratio(ours: Series, other: Series) -> tuple[list[float], str]:
    """Return how many times faster ours is in each round, and by which figure.

    By requests a second; by CPU per request where the load core was the bound for either, or
    where other programs had the router's core: a rate then says nothing of the router.
    """
    if any(one.load_bound or one.disturbed for one in (ours, other)):
        return ratios(other.values("router_cpu_us"), ours.values("router_cpu_us")), "cpu"
    return ratios(ours.values("rate"), other.values("rate")), "throughput"


@dataclass(slots=True)
class Book:
    """Everything that a bench found; written after each row, so that a stop loses nothing."""

    file: Path
    document: dict[str, Json] = field(default_factory=dict)

    def row(self, name: str, found: Mapping[str, Json]) -> None:
        """Note a row and write the file."""
        rows = self.document.setdefault("rows", {})
        if isinstance(rows, dict):
            rows[name] = dict(found)
        self.write()

    def forget(self, name: str) -> None:
        """Drop a row of an earlier run."""
        rows = self.document.get("rows")
        if isinstance(rows, dict):
            rows.pop(name, None)

    def ratio(self, name: str, values: Sequence[float]) -> None:
        """Note a ratio with its least and most over the rounds."""
        if not values:
            return
        self.document[name] = round(statistics.median(values), 4)
        self.document[f"{name}_min"] = round(min(values), 4)
        self.document[f"{name}_max"] = round(max(values), 4)

    def figure(self, name: str, value: Scalar) -> None:
        """Note a figure that has no rounds."""
        self.document[name] = round(value, 4) if isinstance(value, float) else value

    def write(self) -> None:
        """Write what there is."""
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(json.dumps(self.document, indent=1) + "\n")

    def last_line(self) -> str:
        """Return every figure as key=value; words with blanks are no values."""
        pairs = [
            f"{key}={value}"
            for key, value in sorted(self.document.items())
            if isinstance(value, int | float) or (isinstance(value, str) and " " not in value)
        ]
        return " ".join(pairs)
