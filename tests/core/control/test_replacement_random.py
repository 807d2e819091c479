"""Random edits and failures: what must hold at every step, and that it always ends well.

Each walk ends with a quiet phase in which everything is healed; then the pool must reach what
its spec says, whatever happened before.
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUIET_S = 130

ACTIONS = st.one_of(
    st.tuples(st.just("template"), st.integers(1, 3)),
    st.tuples(st.just("replicas"), st.integers(0, 4)),
    st.tuples(st.just("class"), st.integers(1, 2)),
    st.tuples(st.just("classes"), st.booleans()),
    st.tuples(st.just("pause"), st.booleans()),
    st.tuples(st.just("break"), st.booleans()),
    st.tuples(st.just("crash"), st.integers(0, 9)),
    st.tuples(st.just("kill"), st.integers(0, 9)),
    st.tuples(st.just("busy"), st.integers(0, 3)),
    st.tuples(st.just("agent"), st.integers(0, 9)),
    st.tuples(st.just("router"), st.integers(0, 3)),
    st.tuples(st.just("forget"), st.just(0)),
    st.tuples(st.just("restore"), st.booleans()),
    st.tuples(st.just("refuse"), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 12)),
)


def act(one, make, action, value):
    pods = sorted(one.pods.values(), key=lambda pod: pod.uid)
    pod = pods[value % len(pods)] if pods and isinstance(value, int) else None
    if action == "template":
        one.edit(template=make.template(uri=f"pvc://models/resnet50/{value}"))
    elif action == "replicas":
        one.edit(replicas=value)
    elif action == "class":
        first = make.accelerator(resources={"cpu": str(value)})
        one.edit(accelerators=[first, *one.raw["spec"]["accelerators"][1:]])
    elif action == "classes":
        first = make.replace_class(one.raw["spec"]["accelerators"][0], {"max": 1} if value else {})
        more = [make.accelerator(name="spare")] if value else []
        one.edit(accelerators=[first, *more])
    elif action == "pause":
        one.edit(paused=value)
    elif action in FAILURES and (pod or action in {"break", "router", "restore", "wait"}):
        FAILURES[action](one, value, pod)


def start_slowly(one, value, _pod):
    one.start_s = 1e9 if value else 3.0


def crash(one, _value, pod):
    pod.ready, pod.created_s = False, one.now_s


def kill(one, _value, pod):
    pod.terminating_s = pod.terminating_s or one.now_s


def occupy(one, value, _pod):
    one.busy = {item.name: value for item in one.pods.values()}


def silence_agent(_one, _value, pod):
    pod.silent = not pod.silent


def cut_router(one, value, _pod):
    router = one.routers[value % 2]
    router.reachable = router.watches = value < 2


def restore(one, value, _pod):
    """Status or table is lost, with the operator's memory."""
    one.memory = type(one.memory)()
    if value:
        one.status = {}
    else:
        one.published = None


def wait(one, value, _pod):
    for _ in range(value):
        step(one)


FAILURES = {
    "break": start_slowly,
    "crash": crash,
    "kill": kill,
    "busy": occupy,
    "agent": silence_agent,
    "router": cut_router,
    "restore": restore,
    "wait": wait,
}


def step(one, **knobs):
    """Tick once and check what must hold at every step."""
    before = one.published.spec if one.published else None
    there = {uid: (pod.ready, pod.terminating_s) for uid, pod in one.pods.items()}
    one.tick(**knobs)
    check_table(one, there)
    check_weights(one, before)
    check_removals(one, there, before)


def check_table(one, there):
    for worker in one.published.spec.workers if one.published else []:
        if there.get(worker.id, (False, None))[1] is not None:
            assert worker.draining or one.decision.table is not None
    if one.published is not None and one.decision.table is None:
        return
    if one.published is None:
        return
    if one.published.spec.sequence == one.decision.table.spec.sequence:
        for worker in one.published.spec.workers:
            if there[worker.id][1] is not None:
                assert worker.draining, "a leaving worker is never offered"


def check_weights(one, before):
    weights = {w.revision: w.weight for w in one.published.spec.weights} if one.published else {}
    assert sum(weights.values()) in {0, 100}
    served = next((w.revision for w in before.weights if w.weight), None) if before else None
    serves = next((name for name, weight in weights.items() if weight), None)
    if served is None or served == serves or not one.raw["spec"]["replicas"]:
        return
    old = [p for p in one.decision.status.revisions if p.name == served and p.ready_replicas]
    new = [p for p in one.decision.status.revisions if p.name == serves and p.ready_replicas]
    assert new or not old, "weight went to a revision that cannot serve"


def check_removals(one, there, before):
    """A Ready worker is only taken away after a table that routers could see marked it."""
    marked = {w.id for w in before.workers if w.draining} if before else set()
    for uid, (ready, terminating) in there.items():
        taken = uid not in one.pods or one.pods[uid].terminating_s is not None
        if ready and terminating is None and taken:
            assert uid in marked, f"{uid} was taken away unannounced"


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(actions=st.lists(ACTIONS, min_size=1, max_size=25))
def test_any_history_keeps_the_promises_and_ends_as_specified(world, make, actions):
    one = world(raw=make.pool(replicas=2, drain={"timeout": "10s"}))
    for _ in range(6):
        step(one)
    for action, value in actions:
        act(one, make, action, value)
        step(one, forget=action == "forget", write_fails=action == "refuse")
    heal(one)
    for _ in range(QUIET_S):
        step(one)
    expect_rest(one)


def heal(one):
    one.edit(paused=False)
    one.start_s, one.busy = 3.0, {}
    for router in one.routers:
        router.reachable = router.watches = True
    for pod in one.pods.values():
        pod.silent = False


def expect_rest(one):
    spec = one.raw["spec"]
    assert one.condition("Ready")[0] == "True", one.message("Ready")
    assert one.condition("Reconciling") is None, one.message("Reconciling")
    assert len([pod for pod in one.pods.values() if pod.ready]) == spec["replicas"]
    revision = one.status["desiredRevision"]
    assert one.serving() == revision
    assert {p.labels["tidegate.dev/revision"] for p in one.pods.values()} <= {revision}
    assert not any(worker.draining for worker in one.published.spec.workers)
    assert len(one.deployments) <= len(spec["accelerators"])
    assert one.decision.table is None
    assert one.decision.deletes == ()
