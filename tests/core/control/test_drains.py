"""When a worker may go."""

import pytest


@pytest.fixture
def running(world, make):
    """Returns a pool of three Ready workers."""
    one = world(raw=make.pool(replicas=3, drain={"timeout": "20s"}))
    one.run(8)
    return one


def replicas(one):
    return next(iter(one.deployments.values()))["spec"]["replicas"]


def draining(one):
    return sorted(name for name, worker in one.listed().items() if worker.draining)


def test_replicas_fall_only_after_the_costs_are_written(running):
    running.lose_costs = True
    running.edit(replicas=2)
    running.run(10)
    assert replicas(running) == 3
    running.lose_costs = False
    running.run(3)
    assert replicas(running) == 2


def test_the_marked_worker_is_the_one_that_goes(running):
    running.edit(replicas=1)
    running.tick()
    marked = draining(running)
    running.run(10)
    assert len(marked) == 2
    assert not set(marked) & {pod.name for pod in running.pods.values()}


def test_replicas_do_not_fall_before_routers_let_go(running):
    for router in running.routers:
        router.watches = False
    running.edit(replicas=2)
    running.run(10)
    assert replicas(running) == 3
    for router in running.routers:
        router.watches = True
    running.run(4)
    assert replicas(running) == 2


def test_a_silent_router_holds_a_drain_no_longer_than_the_timeout(running):
    running.routers[0].watches = running.routers[0].reachable = False
    running.edit(replicas=2)
    running.run(15)
    assert replicas(running) == 3
    running.run(10)
    assert replicas(running) == 2


def test_a_worker_that_does_not_answer_is_waited_for_until_the_timeout(running):
    for pod in running.pods.values():
        pod.silent = True
    running.edit(replicas=2)
    running.run(15)
    assert replicas(running) == 3
    running.run(10)
    assert replicas(running) == 2


def test_a_starting_worker_is_given_up_first_and_at_once(running):
    running.start_s = 1e9
    running.edit(replicas=4)
    running.run(3)
    running.edit(replicas=3)
    running.tick()
    assert replicas(running) == 3
    assert draining(running) == []


def test_the_choice_of_victims_does_not_wander(running):
    for pod in running.pods.values():
        running.busy[pod.name] = 5
    running.edit(replicas=2)
    running.tick()
    first = draining(running)
    for step in range(6):
        for index, pod in enumerate(running.pods.values()):
            running.busy[pod.name] = 1 + (step + index) % 3
        running.tick()
        assert draining(running) == first


def test_a_restarted_operator_goes_on_with_the_same_victims(running):
    for pod in running.pods.values():
        running.busy[pod.name] = 5
    running.edit(replicas=2)
    running.run(3)
    first = draining(running)
    running.tick(forget=True)
    assert draining(running) == first


def test_a_worker_that_its_node_takes_is_acknowledged_once_routers_let_go(running):
    pod = next(iter(running.pods.values()))
    pod.terminating_s = running.now_s + 1000  # its agent waits for us
    running.tick()
    assert pod.uid not in running.acks
    running.tick()
    assert pod.uid in running.acks


def test_pods_that_no_router_ever_saw_are_acknowledged_at_once(world):
    one = world(start_s=1e9)
    one.run(3)
    pod = next(iter(one.pods.values()))
    pod.terminating_s = one.now_s + 1000
    one.tick()
    assert pod.uid in one.acks


def test_ended_pods_neither_count_nor_block(running, make):
    observed = running.observe()
    evicted = make.replace(
        observed.pods[0], uid="old", name="old", phase="Failed", ready=False, ip=""
    )
    running.extra = {"pods": (*observed.pods, evicted)}
    running.tick()
    assert running.condition("Ready") == ("True", "AsDesired")
    assert running.status["replicas"] == running.status["workers"]["total"] == 3
    assert "old" not in running.listed()
