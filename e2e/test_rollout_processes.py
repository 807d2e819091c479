"""Rollouts on real operator, router, etcd and API server processes, without a node (tier P)."""

from contextlib import AsyncExitStack

import pytest

from tidegate_e2e.load import by_revision, outcomes
from tidegate_e2e.ptier.environment import Environment
from tidegate_e2e.ptier.killing import BAD, GOOD, points, rolled
from tidegate_e2e.ptier.pool import Pool
from tidegate_e2e.ptier.watching import loaded, watched

# cluster: needs Kubernetes' programs, which bringing up the local cluster builds
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
SEED, POINTS = 20261121, 6


@pytest.fixture
async def pool():
    """A pool whose first revision serves, and its rollout."""
    async with AsyncExitStack() as stack:
        env = await stack.enter_async_context(Environment.open())
        made = Pool(env, "ptier")
        await made.make()
        yield made


async def test_promotion_and_rollback_under_load_keep_every_table_valid(pool):
    first = (await pool.status())["stableRevision"]
    async with watched(pool) as tables, loaded(pool) as loads:
        before = await pool.edit(VERSION=2)
        second = (await pool.settled("Healthy", before))["stableRevision"]
        assert second != first
        assert {text for load in loads for text in outcomes(load.log)} == {"ok"}
        assert all(by_revision(load.log)[second] for load in loads)
        before = await pool.edit(VERSION=3, FAIL_PERCENT=50)
        ended = await pool.settled("Degraded", before)
        bad = ended["abortedRevision"]
        await pool.cleaned()
    assert ended["stableRevision"] == second
    assert {a.outcome for load in loads for a in load.log if a.revision != bad} == {"ok"}
    shown = [version.weights.get(second, 0) for version in tables.versions]
    assert {20, 50, 100} <= set(shown)
    assert 20 in {version.weights.get(bad, 0) for version in tables.versions}
    assert tables.weight(bad) == 0
    assert not tables.faults


async def test_an_operator_killed_at_any_write_ends_where_the_undisturbed_one_does(pool):
    async with watched(pool) as tables, loaded(pool) as loads:
        undisturbed = {
            GOOD: await rolled(pool, 2, GOOD, None),
            BAD: await rolled(pool, 3, BAD, None),
        }
        struck = []
        for at, point in enumerate(points(SEED, POINTS, undisturbed[GOOD].writes)):
            phase = GOOD if at % 2 else BAD
            struck.append((phase, await rolled(pool, 10 + at, phase, point)))
    assert [item.end for _, item in struck] == [undisturbed[phase].end for phase, _ in struck]
    assert sum(bool(item.killed_at) for _, item in struck) >= POINTS - 1
    assert not tables.faults
    assert loads[0].log
