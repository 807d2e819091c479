"""Rollouts on real operator, router, etcd and API server processes (tier P): no node, no cluster.

Sections: rolls (50 rollouts), reaction (undo, a canary that turns bad), causes (each cause at each
step), kills (60 kill points), stopped (a held leader, a silent control plane); without arguments
all. Writes .bench/rollout-SECTION.json and ends with one key=value line per section; ends with 1
when a request was lost, a table was invalid or an end state differed.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tidegate_e2e.ptier.environment import Environment
from tidegate_e2e.ptier.killing import BAD, GOOD, points, rolled
from tidegate_e2e.ptier.measuring import (
    CAUSES,
    QUICK,
    Series,
    held_leader,
    lost,
    lost_by_outcome,
    many_rollouts,
    silent_control_plane,
    turned_bad_s,
    undo_s,
)
from tidegate_e2e.ptier.pool import Pool
from tidegate_e2e.ptier.watching import loaded, watched

OUTPUT = Path(__file__).parents[2] / ".bench"
SEED, ROLLOUTS, REQUESTS, POINTS = 20261121, 50, 100_000, 60
REACTIONS, HOLD_S = 10, 90.0
CAUSE_ANALYSIS = {
    "interval": "2s",
    "initialDelay": "0s",
    "minRequests": 10,
    "successRate": {"min": 0.98},
    "p95Latency": {"maxRatioToStable": 2},
    "shadow": {"maxDisagreement": 0.01},
}
KILL_STEPS = ({"setWeight": 20}, {"pause": {"duration": "2s"}}, {"setWeight": 50})
Figures = dict[str, float | int | str | bool]


async def rolls(env: Environment) -> Figures:
    """How soon three routers apply a weight, and what promotions cost in requests."""
    pool = Pool(env, "rolls")
    await pool.make(steps=list(QUICK), analysis=None)
    found = await many_rollouts(pool, ROLLOUTS, 100, REQUESTS)
    return {
        "rollouts": found.rollouts,
        "weightChanges": len(found.acknowledged.values),
        "weightAppliedBy3RoutersP50S": found.acknowledged.percentile(50),
        "weightAppliedBy3RoutersP99S": found.acknowledged.percentile(99),
        "requests": found.sent,
        "requestsLost": found.lost,
        "tableVersions": found.versions,
        "tableFaults": len(found.faults),
    }


async def reaction(env: Environment) -> Figures:
    """How soon undo and a canary that turns bad reach the table."""
    bad, undone, missing, faults = Series(), Series(), 0, 0
    for number in range(REACTIONS):
        pool = Pool(env, f"reaction-{number}")
        hold = {"setWeight": 50}, {"pause": {"duration": "10m"}}
        await pool.make(steps=list(hold), scaleDownDelay="10m", progressDeadline="15m")
        first = str((await pool.status())["stableRevision"])
        async with watched(pool) as tables, loaded(pool) as loads:
            seconds, canary = await turned_bad_s(pool, tables, 2)
            bad.values.append(seconds)
            await pool.patch({"spec": {"steps": list(QUICK), "analysis": None}})
            before = await pool.edit(VERSION=3)
            await pool.settled("Healthy", before)
            undone.values.append(await undo_s(pool, tables, first))
        missing += lost(loads, but_of=canary)
        faults += len(tables.faults)
        await env.api.request("DELETE", pool.rollout_path)
        await env.api.request("DELETE", pool.pool_path)
        await pool.forget()
    return {
        "samples": REACTIONS,
        "badToWeight0P50S": bad.percentile(50),
        "badToWeight0MaxS": bad.percentile(100),
        "analysisIntervalS": 1,
        "undoToWarmP50S": undone.percentile(50),
        "undoToWarmMaxS": undone.percentile(100),
        "requestsLost": missing,
        "tableFaults": faults,
    }


async def causes(env: Environment) -> Figures:
    """How soon each kind of bad canary is at weight 0 on every router, whatever the step."""
    pool = Pool(env, "causes")
    await pool.make(mirror={"percent": 100}, analysis=CAUSE_ANALYSIS, progressDeadline="15m")
    found: Figures = {"intervalS": 2, "boundS": 2 * 2 + 2, "steps": "20,50,80"}
    missing, version, faults = 0, 1, 0
    for name, cause in CAUSES.items():
        taken = Series()
        for weight in (20, 50, 80):
            version += 1
            hold = [{"setWeight": weight}, {"pause": {"duration": "10m"}}]
            await pool.patch({"spec": {"steps": hold}})
            async with watched(pool, measures=True) as tables, loaded(pool, 4) as loads:
                seconds, canary = await turned_bad_s(pool, tables, version, weight, cause)
            taken.values.append(seconds)
            gone = lost(loads, but_of=canary)
            missing += gone
            faults += len(tables.faults)
            if gone:
                print(f"causes: {gone} lost: {lost_by_outcome(loads, canary)}", flush=True)
            print(f"causes: {name} at {weight} %: {seconds:.2f} s", flush=True)
        found |= {f"{name}P50S": taken.percentile(50), f"{name}MaxS": taken.percentile(100)}
    return {**found, "requestsLost": missing, "tableFaults": faults}


async def kills(env: Environment) -> Figures:
    """Whether a killed operator ends where the undisturbed one does."""
    pool = Pool(env, "kills")
    await pool.make(steps=list(KILL_STEPS))
    async with watched(pool) as tables, loaded(pool):
        plain = {GOOD: await rolled(pool, 2, GOOD, None), BAD: await rolled(pool, 3, BAD, None)}
        seeded = {phase: points(SEED, POINTS // 2, plain[phase].writes) for phase in plain}
        struck, different = 0, 0
        for number in range(POINTS):
            phase = GOOD if number % 2 else BAD
            found = await rolled(pool, 100 + number, phase, seeded[phase][number // 2])
            struck += bool(found.killed_at)
            if found.end != plain[phase].end:
                different += 1
                print(f"kills: {found} instead of {plain[phase].end}", flush=True)
            print(f"kills: {number} {phase} {found.point} {found.killed_at}", flush=True)
    return {
        "killPoints": struck,
        "differentEnds": different,
        "writesOfAGoodRollout": plain[GOOD].writes,
        "writesOfABadRollout": plain[BAD].writes,
        "tableVersions": len(tables.versions),
        "tableFaults": len(tables.faults),
    }


async def stopped(env: Environment) -> Figures:
    """What a held leader and a silent control plane do to a rollout."""
    pool = Pool(env, "stopped")
    await pool.make()
    async with watched(pool) as tables, loaded(pool) as loads:
        held = await held_leader(env, pool, HOLD_S, 2)
        missing = lost(loads)
    pool = Pool(env, "silent")
    await pool.make(steps=[{"setWeight": 50}, {"pause": {"duration": "10m"}}])
    async with loaded(pool):
        silent = await silent_control_plane(env, pool, 2)
    return {
        "leaderHeldS": HOLD_S,
        "healthyBySecondS": held["healthy_s"],
        "writesOfTheWokenLeader": held["late_writes"],
        "requestsLost": missing,
        "tableFaults": len(tables.faults),
        "canaryDroppedByRoutersS": silent["dropped_s"],
        "differentEnds": int(not silent["kept"]),
    }


SECTIONS: dict[str, Callable[[Environment], Awaitable[Figures]]] = {
    "rolls": rolls, "reaction": reaction, "causes": causes, "kills": kills, "stopped": stopped,
}  # fmt: skip


async def section(name: str) -> bool:
    """Run one section in an environment of its own; whether nothing was lost or wrong."""
    began_s = time.monotonic()
    async with Environment.open() as env:
        found = await SECTIONS[name](env)
    found = {"tier": "P", "cores": os.cpu_count() or 0, **found}
    found["tookS"] = round(time.monotonic() - began_s)
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / f"rollout-{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{name}:", " ".join(f"{key}={value}" for key, value in found.items()), flush=True)
    return not any(found.get(key) for key in ("requestsLost", "tableFaults", "differentEnds"))


def main(names: list[str]) -> int:
    """Run the sections; 1 when one of them found something wrong."""
    good = [asyncio.run(section(name)) for name in names or SECTIONS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
