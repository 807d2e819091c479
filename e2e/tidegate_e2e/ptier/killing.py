"""Rollouts whose operator is killed at a seeded write, compared with the one left alone."""

import random
from dataclasses import dataclass

from tidegate_e2e.ptier.api import Json
from tidegate_e2e.ptier.pool import Pool
from tidegate_e2e.ptier.proxy import KillPoint

GOOD, BAD = "Healthy", "Degraded"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one rollout ended; `killed_at` is "" when nobody was killed."""

    point: KillPoint | None
    killed_at: str
    end: Json
    writes: int


async def rolled(pool: Pool, version: int, phase: str, point: KillPoint | None) -> Outcome:
    """Roll one version out: a good one (GOOD) or one that fails half its calls (BAD)."""
    proxy = pool.env.proxy
    proxy.arm(point)
    before = await pool.edit(VERSION=version, FAIL_PERCENT=0 if phase == GOOD else 50)
    await pool.settled(phase, before)
    end = await pool.cleaned()
    writes, killed_at = proxy.writes, proxy.killed_at
    proxy.arm(None)
    return Outcome(point, killed_at, end, writes)


def points(seed: int, count: int, writes: int) -> list[KillPoint]:
    """Return kill points spread over the writes of a rollout, before and after by turns.

    `writes` is what an undisturbed rollout does; each point lies in its own stretch of them.
    """
    seeded = random.Random(seed)  # noqa: S311  # repeatable on purpose, no secret
    found = []
    for at in range(count):
        low, high = writes * at // count, writes * (at + 1) // count
        number = 1 + seeded.randint(low, max(low, high - 1))
        found.append(KillPoint(number, "before" if seeded.random() < 0.5 else "after"))
    return found
