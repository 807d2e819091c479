"""Figures of many rollouts: acknowledgement, loss, undo, rollback, silence of the operator."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tidegate_e2e.load import Load
from tidegate_e2e.ptier.api import AWAY, Json
from tidegate_e2e.ptier.environment import ROUTERS, Environment, wait
from tidegate_e2e.ptier.pool import Pool
from tidegate_e2e.ptier.watching import Watcher, loaded, watched
from tidegate_e2e.ptier.workers import Behaviour

BROKEN = Behaviour(fail_percent=60)
GOOD_DELAY_MS = 10
CAUSES = {
    "slow": Behaviour(delay_s=5 * GOOD_DELAY_MS / 1000),
    "erring": Behaviour(delay_s=GOOD_DELAY_MS / 1000, fail_percent=10),
    "wrong": Behaviour(delay_s=GOOD_DELAY_MS / 1000, wrong=True),
    "crashed": Behaviour(crashed=True),
}
QUICK: Sequence[Json] = ({"setWeight": 20}, {"setWeight": 50})


@dataclass(slots=True)
class Series:
    """Numbers of one kind, in seconds."""

    values: list[float] = field(default_factory=list)

    def percentile(self, percent: int) -> float:
        """Return the nearest-rank percentile, rounded to milliseconds; -1 without values."""
        ranked = sorted(self.values)
        if not ranked:
            return -1.0
        return round(ranked[max(0, -(-len(ranked) * percent // 100) - 1)], 3)


def lost(loads: Sequence[Load], *, but_of: str = "-") -> int:
    """Count requests without the right answer, those that a bad revision answered left out."""
    return sum(not a.ok and a.revision != but_of for load in loads for a in load.log)


def lost_by_outcome(loads: Sequence[Load], bad: str) -> Counter[tuple[str, str]]:
    """Count what `lost` counts by (outcome, revision)."""
    answers = (a for load in loads for a in load.log if not a.ok and a.revision != bad)
    return Counter((a.outcome, a.revision) for a in answers)


async def shown(watcher: Watcher, revision: str, weight: int, limit_s: float = 60) -> float:
    """Return when a revision's weight in the table is `weight` (monotonic seconds)."""

    async def look() -> bool:
        return bool(watcher.versions) and watcher.weight(revision) == weight

    await wait(look, f"weight {weight} of {revision}", limit_s, every_s=0.01)
    return watcher.versions[-1].at_s


async def canary_of(pool: Pool, weight: int) -> str:
    """Return the canary's name once routers acknowledged a weight of it."""

    async def look() -> str:
        status = await pool.status()
        good = status.get("verifiedWeight") == weight
        return str(status["canaryRevision"]) if good else ""

    return await wait(look, f"canary at {weight}")


async def turned_bad_s(
    pool: Pool, watcher: Watcher, version: int, weight: int = 50, cause: Behaviour = BROKEN
) -> tuple[float, str]:
    """Hold a good canary at a weight, turn it bad.

    Returns seconds until every router applied weight 0, and the canary's name.
    """
    await pool.edit(VERSION=version, DELAY_MS=GOOD_DELAY_MS)
    canary = await canary_of(pool, weight)
    began_s = time.monotonic()
    pool.env.kubelet.turned[canary] = cause
    await shown(watcher, canary, 0)
    await watcher.applied()
    return time.monotonic() - began_s, canary


async def undo_s(pool: Pool, watcher: Watcher, target: str) -> float:
    """Go back to a revision whose workers still run; seconds until it has all requests."""
    began_s = time.monotonic()
    await pool.annotate("undo", f"{target}@{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}")
    return await shown(watcher, target, 100) - began_s


async def held_leader(env: Environment, pool: Pool, hold_s: float, version: int) -> Json:
    """SIGSTOP the leader in a rollout while a second operator waits; then let it go on."""
    kubeconfig = env.control.kubeconfig("second")
    second = env.add_operator(kubeconfig)
    before = await pool.edit(VERSION=version)
    await canary_of(pool, 20)
    held = env.operators[0].hold()
    began_s = time.monotonic()
    try:
        await pool.settled("Healthy", before, limit_s=hold_s)
        healthy_s = time.monotonic() - began_s
        await asyncio.sleep(max(0.0, hold_s - healthy_s))
        writes = env.proxy.writes
    finally:
        if held is not None:
            os.kill(held, signal.SIGCONT)
    await asyncio.sleep(5)  # what a woken leader would still write, it writes now
    late = env.proxy.writes - writes
    await pool.cleaned()
    second.stop()
    return {"healthy_s": round(healthy_s, 1), "late_writes": late}


async def silent_control_plane(env: Environment, pool: Pool, version: int) -> Json:
    """End operator and API server, break the canary; routers drop it, the abort sticks."""
    await pool.edit(VERSION=version)
    canary = await canary_of(pool, 50)
    for operator in env.operators:
        operator.kill()
    env.control.apiserver.kill()
    began_s = time.monotonic()
    env.kubelet.turned[canary] = BROKEN
    await wait(lambda: _dropped(env, canary), "every router drops the canary", 60)
    dropped_s = time.monotonic() - began_s
    env.control.apiserver.start()
    await wait(env.api.ready, "the API server again", 60)
    env.operators[0].start()

    async def aborted() -> bool:
        return (await pool.status()).get("abortedRevision") == canary

    await wait(aborted, "the operator keeps the routers' abort", 60)
    end = await pool.cleaned(90)
    return {"dropped_s": round(dropped_s, 1), "kept": end["weights"] == {"stable": 100}}


async def _dropped(env: Environment, canary: str) -> bool:
    limits = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(timeout=limits) as session:
        for router in range(ROUTERS):
            try:
                async with session.get(env.state_url(router)) as answer:
                    aborts = (await answer.json()).get("localAborts", [])
            except AWAY:
                return False
            if canary not in {item["revision"] for item in aborts}:
                return False
    return True


@dataclass(slots=True)
class Rolls:
    """What many good rollouts under load gave."""

    acknowledged: Series = field(default_factory=Series)
    rollouts: int = 0
    versions: int = 0
    sent: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)


async def many_rollouts(pool: Pool, count: int, first_version: int, requests: int) -> Rolls:
    """Promote good versions, one after the other, under load on every router.

    At least `count`, and as many more as it takes until `requests` were sent.
    """
    found = Rolls()
    async with watched(pool, measures=True) as tables, loaded(pool, 5, 0.04) as loads:
        while found.rollouts < count or sum(len(load.log) for load in loads) < requests:
            before = await pool.edit(VERSION=first_version + found.rollouts)
            await pool.settled("Healthy", before)
            found.rollouts += 1
    found.acknowledged.values = tables.acknowledged_s
    found.versions, found.faults = len(tables.versions), tables.faults
    found.sent, found.lost = sum(len(load.log) for load in loads), lost(loads)
    return found
