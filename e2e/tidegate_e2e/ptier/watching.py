"""Sees every version of a pool's RouteTable, and when the routers applied each weight."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from tidegate_e2e.load import Load
from tidegate_e2e.ptier import api as paths
from tidegate_e2e.ptier.api import AWAY, AnswerError, Json
from tidegate_e2e.ptier.environment import MODEL, ROUTERS, Environment
from tidegate_e2e.ptier.pool import BODY, EXPECTED, Pool

_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a table: when it was seen (monotonic seconds) and its weights above 0."""

    at_s: float
    sequence: int
    weights: Mapping[str, int]


@dataclass(slots=True)
class Watcher:
    """`versions` in their order, `faults` in words, `acknowledged_s` per change of weights."""

    env: Environment
    namespace: str
    measures: bool = False
    versions: list[Version] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    acknowledged_s: list[float] = field(default_factory=list)
    _asking: list[asyncio.Task[None]] = field(default_factory=list)

    async def run(self) -> None:
        """Watch until cancelled; an API server that is away is watched again."""
        path = paths.TABLES.format(self.namespace)
        while True:
            try:
                async for event in self.env.api.watch(path):
                    if event["type"] in {"ADDED", "MODIFIED"}:
                        self._take(event["object"])
            except (AnswerError, *AWAY):
                pass
            await asyncio.sleep(0.2)

    def weight(self, revision: str) -> int:
        """Return what a revision gets in the newest version."""
        return self.versions[-1].weights.get(revision, 0) if self.versions else 0

    async def applied(self) -> None:
        """Return once every router applied every change of weights seen so far."""
        await asyncio.gather(*self._asking)

    def _take(self, table: Json) -> None:
        spec = table["spec"]
        weights = {w["revision"]: w["weight"] for w in spec["weights"] if w["weight"]}
        seen = Version(time.monotonic(), spec["sequence"], weights)
        before = self.versions[-1] if self.versions else None
        if before is not None and before.sequence == seen.sequence:
            return  # told again by a new watch
        self.versions.append(seen)
        self.faults += [f"{spec['sequence']}: {fault}" for fault in _faults(spec, before)]
        if self.measures and before is not None and before.weights != weights:
            self._asking.append(asyncio.create_task(self._ask(seen)))

    async def _ask(self, seen: Version) -> None:
        """Measure until every router has applied a version."""
        limits = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=limits) as session:
            await asyncio.gather(
                *(self._applied(session, router, seen.sequence) for router in range(ROUTERS))
            )
        self.acknowledged_s.append(time.monotonic() - seen.at_s)

    async def _applied(self, session: aiohttp.ClientSession, router: int, sequence: int) -> None:
        while True:
            async with session.get(self.env.state_url(router)) as answer:
                tables = (await answer.json())["tables"]
            mine = [t for t in tables if (t["namespace"], t["pool"]) == (self.namespace, MODEL)]
            if any(table["appliedSequence"] >= sequence for table in mine):
                return
            await asyncio.sleep(_LOOK_S)


def _faults(spec: Json, before: Version | None) -> list[str]:
    """Return what no version of a table may show."""
    weights = {w["revision"]: w["weight"] for w in spec["weights"] if w["weight"]}
    ready = {w["revision"] for w in spec["workers"] if w.get("ready", True)}
    found = []
    if weights and sum(weights.values()) != 100:
        found.append(f"weights sum to {sum(weights.values())}")
    if ready and weights.keys() - ready:
        found.append(f"weight without a Ready worker: {weights}, Ready are {sorted(ready)}")
    if before is not None and spec["sequence"] <= before.sequence:
        found.append(f"sequence {spec['sequence']} after {before.sequence}")
    return found


@asynccontextmanager
async def watched(pool: Pool, *, measures: bool = False) -> AsyncIterator[Watcher]:
    """Watch a pool's table meanwhile."""
    watcher = Watcher(pool.env, pool.namespace, measures)
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def loaded(pool: Pool, clients: int = 2, pause_s: float = 0.05) -> AsyncIterator[list[Load]]:
    """Send requests to all routers meanwhile, `clients` to each; yield their logs."""
    loads = [
        Load(pool.env.infer_url(n), BODY, pool.headers, EXPECTED, pause_s) for n in range(ROUTERS)
    ]
    async with asyncio.TaskGroup() as group:
        for load in loads:
            group.create_task(load.run(clients))
        try:
            yield loads
        finally:
            for load in loads:
                load.stop()
