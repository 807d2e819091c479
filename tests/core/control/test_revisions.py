import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_operator.core.identity import revision_hash, set_identity, set_name, stable_hash

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(value=st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_the_hash_does_not_depend_on_the_order_of_keys(value):
    assert revision_hash(dict(reversed(value.items())), 0) == revision_hash(value, 0)


@given(value=JSON, salt=st.integers(1, 5))
def test_a_collision_count_changes_every_name(value, salt):
    assert stable_hash(value, salt) != stable_hash(value)


def test_names_are_stable_over_releases():
    """A change of these would restart every worker of every user at the next upgrade."""
    template = {"models": [{"name": "m", "source": {"uri": "pvc://c/m"}}]}
    revision = revision_hash(template, 0)
    identity = set_identity(revision, {"name": "cpu", "kind": "CPU", "costPerHour": "1"})
    assert revision == "3584a296"
    assert set_name("vision", "cpu", identity, 0) == "vision-cpu-2213c782"


@pytest.mark.parametrize(
    ("edit", "same"),
    [
        pytest.param({"costPerHour": "9"}, True, id="cost-is-no-part"),
        pytest.param({"replicas": {"max": 3}}, True, id="bounds-are-no-part"),
        pytest.param({"resources": None}, True, id="an-explicit-null-is-absence"),
        pytest.param({"resources": {"cpu": "2"}}, False, id="resources-are"),
        pytest.param({"nodeSelector": {"a": "b"}}, False, id="the-node-selector-is"),
        pytest.param({"kind": "GPU"}, False, id="the-kind-is"),
        pytest.param({"models": [{"name": "m"}]}, False, id="model-overrides-are"),
        pytest.param({"name": "other"}, False, id="the-name-is"),
    ],
)
def test_what_of_a_class_makes_another_worker_set(edit, same):
    before = {"name": "cpu", "kind": "CPU"}
    assert (set_identity("r", {**before, **edit}) == set_identity("r", before)) is same


def test_other_data_under_our_name_salts_the_hash(world):
    one = world()
    one.tick()
    name, record = next(
        (name, body) for name, body in one.revisions.items() if "template" in body["data"]
    )
    fresh = world(raw=one.raw)
    other = {**record["data"], "template": {"models": []}}
    fresh.revisions[name] = {**record, "data": other}
    fresh.run(8)
    assert fresh.status["collisionCount"] == 1
    assert fresh.status["desiredRevision"] != one.status["desiredRevision"]
    assert fresh.revisions[name]["data"] == other
    assert fresh.condition("Ready") == ("True", "AsDesired")


def test_what_does_not_shape_workers_makes_no_revision(world, make):
    one = world()
    one.run(8)
    pods, revisions = set(one.pods), set(one.revisions)
    one.edit(
        routing={"topK": 5},
        drain={"timeout": "5m"},
        accelerators=[make.accelerator(costPerHour="3", replicas={"max": 9})],
    )
    one.run(8)
    assert set(one.pods) == pods
    assert set(one.revisions) == revisions


def test_a_set_that_lost_its_record_is_adopted_as_it_is(world, make):
    one = world()
    one.run(8)
    pods = set(one.pods)
    name = next(iter(one.deployments))
    del one.revisions[name]
    one.settings = make.replace(one.settings, worker_image="registry.example/worker:2")
    one.run(8)
    assert set(one.pods) == pods
    assert one.revisions[name]["data"]["podTemplate"]


def test_a_revision_that_returns_takes_the_newest_number(world, make):
    one = world()
    one.run(8)
    first = one.raw["spec"]["template"]
    name = f"vision-{one.status['desiredRevision']}"
    one.edit(template=make.template(uri="pvc://models/resnet50/2"))
    one.run(30)
    one.edit(template=first)
    one.run(30)
    assert one.revisions[name]["revision"] == 3
    assert one.condition("Ready") == ("True", "AsDesired")


def test_the_image_is_resolved_once_per_revision(world, make):
    one = world()
    one.run(8)
    one.settings = make.replace(one.settings, worker_image="registry.example/worker:2")
    one.edit(accelerators=[make.accelerator(), make.accelerator(name="spare")], replicas=1)
    one.edit(accelerators=[make.accelerator(name="spare")])
    one.run(20)
    spec = next(iter(one.deployments.values()))["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "registry.example/worker:1"


def test_a_record_of_an_older_operator_is_applied_as_it_is(world):
    """Its data is immutable: an added field would be refused, and stall the pool."""
    one = world()
    one.run(8)
    for name, body in one.revisions.items():
        one.revisions[name] = {**body, "data": {**body["data"], "ofAnOlderRelease": True}}
    pods = set(one.pods)
    one.run(3)
    assert all(body["data"]["ofAnOlderRelease"] for body in one.revisions.values())
    assert set(one.pods) == pods
    assert one.condition("Ready") == ("True", "AsDesired")
