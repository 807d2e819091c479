"""The Lease: taken, kept, lost, released, and taken over, against the fake API server."""

import asyncio

import pytest

from tidegate_operator.adapters.lease import Lease, LeaseTimes, LostLeaseError, touch

PATH = "/apis/coordination.k8s.io/v1/namespaces/system/leases/tidegate-operator"
TIMES = LeaseTimes(duration_s=1.0, renew_deadline_s=0.6, retry_s=0.05)


@pytest.fixture
def contender(connect):
    """Return `contender(name)`: one more process that wants the Lease."""
    return lambda name: Lease(connect(), "system", "tidegate-operator", name, TIMES)


def holder(api):
    return (api.get(PATH) or {"spec": {}})["spec"].get("holderIdentity")


async def acquire(lease):
    await asyncio.wait_for(lease.acquire(), 5)


async def test_the_first_one_creates_the_lease_and_may_write(api, contender):
    lease = contender("one")
    assert not lease.held
    await acquire(lease)
    assert lease.held
    assert api.get(PATH)["spec"]["leaseTransitions"] == 1
    assert holder(api) == "one"


async def test_a_standby_waits_as_long_as_the_leader_renews(api, contender, background, until):
    leader, standby = contender("one"), contender("two")
    await acquire(leader)
    background(leader.keep())
    waiting = background(standby.acquire())
    renewed = api.count("PUT", "leases")
    # Ten renewals take as long as half the duration: a standby that counted from the wall clock
    # or from its first look would have taken over by the end of thirty.
    await until(lambda: api.count("PUT", "leases") >= renewed + 30, "thirty renewals")
    assert not waiting.done()
    assert (holder(api), standby.held) == ("one", False)


async def test_a_standby_takes_over_when_the_leader_falls_silent(api, contender, background):
    leader, standby = contender("one"), contender("two")
    await acquire(leader)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    background(standby.acquire())
    await acquire(standby)
    assert loop.time() - began_s >= TIMES.duration_s, "not before the Lease ran out"
    assert holder(api) == "two"
    assert api.get(PATH)["spec"]["leaseTransitions"] == 2
    assert not leader.held, "who does not renew must have stopped writing before"


async def test_writing_ends_at_the_renew_deadline_which_is_before_a_takeover(api, contender, until):
    lease = contender("one")
    await acquire(lease)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await until(lambda: not lease.held, "the renew deadline")
    assert loop.time() - began_s < TIMES.duration_s
    assert holder(api) == "one"


@pytest.mark.parametrize("fault", [500, 403, "hang"])
async def test_a_leader_whose_api_server_fails_gives_up_in_time(api, contender, fault):
    lease = contender("one")
    await acquire(lease)
    api.fault = lambda _method, path: fault if "leases" in path else None
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with pytest.raises(LostLeaseError, match="not renewed in time"):
        await asyncio.wait_for(lease.keep(), 12)
    assert not lease.held
    # A call that hangs is cut after 5 s; nothing was written after 0.6 s in any case.
    assert loop.time() - began_s < 6


async def test_one_failed_renewal_is_no_loss(api, contender, background, until):
    lease = contender("one")
    await acquire(lease)
    failures = iter([500, 500, 409])
    api.fault = lambda _method, path: next(failures, None) if "leases" in path else None
    keeping = background(lease.keep())
    renewed = api.count("PUT", "leases")
    await until(lambda: api.count("PUT", "leases") >= renewed + 5, "renewals after the failures")
    assert not keeping.done()
    assert lease.held


async def test_a_leader_that_finds_another_holder_ends_at_once(api, contender):
    lease = contender("one")
    await acquire(lease)
    theft = api.get(PATH)
    api.put(PATH, {**theft, "spec": {**theft["spec"], "holderIdentity": "two"}})
    with pytest.raises(LostLeaseError, match="held by another"):
        await asyncio.wait_for(lease.keep(), 5)
    assert not lease.held


async def test_a_released_lease_is_free_at_once(api, contender):
    leader, standby = contender("one"), contender("two")
    await acquire(leader)
    await leader.release()
    assert (holder(api), leader.held) == ("", False)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await acquire(standby)
    assert loop.time() - began_s < TIMES.duration_s / 2


async def test_release_leaves_the_lease_of_another_alone(api, contender):
    leader = contender("one")
    await acquire(leader)
    theft = api.get(PATH)
    api.put(PATH, {**theft, "spec": {**theft["spec"], "holderIdentity": "two"}})
    await leader.release()
    assert holder(api) == "two"


async def test_two_that_start_together_give_one_leader(api, contender, background, until):
    leases = [contender(name) for name in ("one", "two", "three")]
    for lease in leases:
        background(lease.acquire())
    await until(lambda: any(lease.held for lease in leases), "a leader")
    assert [lease.held for lease in leases].count(True) == 1
    assert holder(api) in {"one", "two", "three"}


async def test_the_lease_of_routes_is_dated_and_carries_the_lag(api, client):
    path = PATH.replace("tidegate-operator", "tidegate-routes")
    await touch(client, "system", "tidegate-routes", "tidegate", {"tidegate.dev/lag": "0"})
    first = api.get(path)
    await touch(client, "system", "tidegate-routes", "tidegate", {"tidegate.dev/lag": "7"})
    second = api.get(path)
    assert second["metadata"]["annotations"] == {"tidegate.dev/lag": "7"}
    assert second["spec"]["renewTime"] > first["spec"]["renewTime"]
