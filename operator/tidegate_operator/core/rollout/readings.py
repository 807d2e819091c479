"""Attempts by revision, model and class, added up over routers while a canary is tried.

A router's counts only grow while its instance lives. What was counted between two readings of one
instance is added to a total, so a missed scrape loses nothing, a router that is gone keeps what it
counted, and a window is the difference of two totals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_api import histogram as tg1
from tidegate_api.routerstate import RouterState, SeriesState, ShadowState
from tidegate_operator.core.observation import RouterMember

# An endpoint that turned up this long after counting began had no counts before it.
_SURELY_NEW_S = 5.0
_FORGET_AFTER_S = 600.0


class Key(NamedTuple):
    """What one series counts."""

    revision: str
    model: str
    accelerator: str

    @property
    def stratum(self) -> tuple[str, str]:
        """Model and class: only equal ones are comparable."""
        return self.model, self.accelerator


@dataclass(frozen=True, slots=True)
class Counts:
    """Attempts by outcome; cancelled ones say nothing and are left out. `latency` is tg1."""

    ok: int = 0
    failed: int = 0  # modelError + workerFault + timeout
    client: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """Attempts that tell whether the model works."""
        return self.ok + self.failed

    @property
    def answered(self) -> int:
        """Attempts that tell whether the model takes what clients send."""
        return self.ok + self.failed + self.client

    def plus(self, other: "Counts") -> "Counts":
        """Add two."""
        return Counts(
            self.ok + other.ok,
            self.failed + other.failed,
            self.client + other.client,
            tg1.merge((self.latency, other.latency)),
        )

    def since(self, before: "Counts") -> "Counts":
        """Subtract an earlier reading; what went down counts as nothing."""
        return Counts(
            max(0, self.ok - before.ok),
            max(0, self.failed - before.failed),
            max(0, self.client - before.client),
            tg1.difference(self.latency, before.latency),
        )


@dataclass(frozen=True, slots=True)
class Shadow:
    """Comparisons of mirrored requests; `bad`: another answer, or none where stable gave one."""

    compared: int = 0
    bad: int = 0

    def plus(self, other: "Shadow") -> "Shadow":
        """Add two."""
        return Shadow(self.compared + other.compared, self.bad + other.bad)

    def since(self, before: "Shadow") -> "Shadow":
        """Subtract an earlier reading."""
        return Shadow(max(0, self.compared - before.compared), max(0, self.bad - before.bad))


_NO_COUNTS = Counts()


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of the two revisions that are compared, and of the canary's shadows."""

    series: Mapping[Key, Counts] = field(default_factory=dict)
    shadow: Shadow = field(default_factory=Shadow)

    def plus(self, other: "Totals") -> "Totals":
        """Add two."""
        series = dict(self.series)
        for key, counts in other.series.items():
            series[key] = series[key].plus(counts) if key in series else counts
        return Totals(series, self.shadow.plus(other.shadow))

    def since(self, before: "Totals") -> "Totals":
        """Subtract an earlier total. A series that was not there before began at 0."""
        series = {
            key: counts.since(before.series.get(key, _NO_COUNTS))
            for key, counts in self.series.items()
        }
        return Totals(series, self.shadow.since(before.shadow))

    def of(self, revision: str) -> dict[tuple[str, str], Counts]:
        """Return one revision's counts by stratum."""
        return {key.stratum: item for key, item in self.series.items() if key.revision == revision}

    def all_of(self, revision: str) -> Counts:
        """Return one revision's counts over all strata."""
        total = _NO_COUNTS
        for counts in self.of(revision).values():
            total = total.plus(counts)
        return total


@dataclass(frozen=True, slots=True)
class Seen:
    """The last reading of one router instance."""

    scraped_s: float
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What was counted since `began_s`, and the readings that are in it."""

    began_s: float
    totals: Totals = field(default_factory=Totals)
    seen: Mapping[str, Seen] = field(default_factory=dict)  # by router instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where to read: whose series of which routers."""

    routers: Sequence[RouterMember]
    pool_uid: str
    stable: str
    canary: str


def count(ledger: Ledger, source: Source, now_s: float) -> Ledger:
    """Return the ledger with every newer reading added."""
    seen, totals = dict(ledger.seen), ledger.totals
    for member in source.routers:
        state, scraped_s = member.state, member.scraped_s
        if state is None or scraped_s is None or state.histogram_scheme != tg1.SCHEME:
            continue
        before = seen.get(state.instance)
        if before is not None and before.scraped_s >= scraped_s:
            continue
        found = _read(state, source)
        seen[state.instance] = Seen(scraped_s, found)
        totals = totals.plus(found.since(_base(before, found, member, ledger)))
    kept = {name: item for name, item in seen.items() if now_s - item.scraped_s < _FORGET_AFTER_S}
    return Ledger(began_s=ledger.began_s, totals=totals, seen=kept)


def _base(before: Seen | None, found: Totals, member: RouterMember, ledger: Ledger) -> Totals:
    """An unknown instance counts from its first reading on, or from 0 where it is surely new."""
    if before is not None:
        return before.totals
    return Totals() if member.seen_s >= ledger.began_s + _SURELY_NEW_S else found


def _read(state: RouterState, source: Source) -> Totals:
    series: dict[Key, Counts] = {}
    for item in state.series:
        if item.uid == source.pool_uid and item.revision in (source.stable, source.canary):
            key = Key(item.revision, item.model, item.accelerator)
            series[key] = series.get(key, _NO_COUNTS).plus(_counts(item))
    shadow = Shadow()
    for shown in state.shadows:
        if shown.uid == source.pool_uid and shown.revision == source.canary:
            shadow = shadow.plus(_shadow(shown))
    return Totals(series, shadow)


def _counts(item: SeriesState) -> Counts:
    attempts = item.attempts
    failed = (attempts.model_error, attempts.worker_fault, attempts.timeout)
    latency = {
        bucket: number
        for bucket, number in item.attempt_latency
        if 0 <= bucket < tg1.BUCKETS and number > 0
    }
    return Counts(
        max(0, attempts.ok), sum(max(0, part) for part in failed), max(0, attempts.client), latency
    )


def _shadow(shown: ShadowState) -> Shadow:
    failed = max(0, shown.failed)
    return Shadow(max(0, shown.compared) + failed, max(0, shown.disagreed) + failed)


def unreadable(routers: Sequence[RouterMember]) -> tuple[str, ...]:
    """Return the routers whose histograms are of a scheme that cannot be added up."""
    return tuple(
        member.name
        for member in routers
        if member.state is not None and member.state.histogram_scheme != tg1.SCHEME
    )
