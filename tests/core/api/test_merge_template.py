import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.merge import merge_template

URI = "pvc://models/a/3"


def pool(**changes):
    first = {"name": "a", "source": {"uri": URI, "sha256": "0" * 64}, "maxBatchSize": 8}
    second = {"name": "b", "source": {"uri": "pvc://models/b"}}
    return {
        "image": "worker:1",
        "models": [first, second],
        "pod": {"env": [{"name": "X"}]},
    } | changes


def merged(*models, **rest):
    template, problems = merge_template(pool(), {"models": list(models), **rest})
    assert problems == ()
    return template


def model(template, name="a"):
    (found,) = [one for one in template["models"] if one["name"] == name]
    return found


def test_nothing_asked_is_the_pool_s_own_template():
    assert merge_template(pool(), {}) == (pool(), ())


def test_a_scalar_replaces():
    assert merged(image="worker:2")["image"] == "worker:2"
    assert model(merged({"name": "a", "maxBatchSize": 16}))["maxBatchSize"] == 16


def test_other_models_and_fields_stay_in_the_pool_s_order():
    template = merged({"name": "b", "maxBatchSize": 2}, {"name": "a", "memory": "1Gi"})
    assert [one["name"] for one in template["models"]] == ["a", "b"]
    assert model(template)["maxBatchSize"] == 8
    assert template["image"] == "worker:1"


def test_a_list_replaces_whole():
    assert merged(pod={"env": [{"name": "Y"}]})["pod"] == {"env": [{"name": "Y"}]}


def test_an_object_merges_field_by_field():
    template = merged(pod={"labels": {"team": "x"}})
    assert template["pod"] == {"env": [{"name": "X"}], "labels": {"team": "x"}}


def test_an_empty_object_switches_batching_on():
    assert model(merged({"name": "a", "dynamicBatching": {}}))["dynamicBatching"] == {}


@pytest.mark.parametrize("change", [{"maxBatchSize": None}, {"source": None}, {"memory": None}])
def test_null_removes_nothing(change):
    assert merged({"name": "a", **change}) == pool()


def test_null_of_the_template_s_own_fields_removes_nothing():
    assert merge_template(pool(), {"image": None, "models": None, "pod": None})[0] == pool()


def test_another_uri_drops_what_told_of_the_old_files():
    template = merged({"name": "a", "source": {"uri": "pvc://models/a/4"}})
    assert model(template)["source"] == {"uri": "pvc://models/a/4"}


def test_the_same_uri_keeps_its_digest():
    template = merged({"name": "a", "source": {"uri": URI, "version": 2}})
    assert model(template)["source"] == {"uri": URI, "sha256": "0" * 64, "version": 2}


def test_another_uri_keeps_its_credentials_and_takes_its_own_digest():
    credentials = {"secretName": "s3"}
    own = pool(models=[{"name": "a", "source": {"uri": "s3://a/1", "credentials": credentials}}])
    source = {"uri": "s3://a/2", "sha256": "1" * 64}
    template, _ = merge_template(own, {"models": [{"name": "a", "source": source}]})
    assert model(template)["source"] == {**source, "credentials": credentials}


def test_a_model_that_the_pool_lacks_is_a_problem_and_is_not_added():
    template, (problem,) = merge_template(pool(), {"models": [{"name": "a"}, {"name": "c"}]})
    assert [one["name"] for one in template["models"]] == ["a", "b"]
    assert problem.field == "spec.template.models[1].name"
    assert "no model c, only a, b" in problem.expectation


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["models", "source", "uri", "name", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(["image", "models", "pod", "x"]), JSON, max_size=4)


@given(own=OBJECTS, change=OBJECTS)
def test_whatever_the_documents_hold_nothing_raises_and_nothing_given_is_changed(own, change):
    before = copy.deepcopy((own, change))
    merge_template(own, change)
    assert (own, change) == before


@given(change=OBJECTS)
def test_merging_twice_changes_no_more_than_once(change):
    once, _ = merge_template(pool(), change)
    assert merge_template(once, change)[0] == once
