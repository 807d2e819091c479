"""Which models the text APIs list, and which one a request without a name means."""

import pytest

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import PoolIdentity, RoutedWorker, RouteTableSpec, Served
from tidegate_api.state import Traits
from tidegate_router.core import lookup, textmodels
from tidegate_router.core.pools import PoolView


def table(name, created, **models):
    serves = [
        Served(revision="r", model=model, limit=1, traits=Traits(text=text))
        for model, text in models.items()
    ]
    worker = RoutedWorker(id=f"w-{name}", address="10.0.0.1", revision="r", serves=serves)
    return RouteTableSpec(
        pool=PoolIdentity(namespace="ml", name=name, uid=name, created_at=created),
        sequence=1,
        weights=[RevisionWeight(revision="r", weight=100)],
        workers=[worker],
    )


OLD = table("old", "2026-01-01T00:00:00Z", story=True, classes=False)
NEW = table("new", "2026-02-01T00:00:00Z", story=True, poem=True)


def scene(*tables):
    return lookup.build(tables), {one.pool.uid: PoolView(one) for one in tables}


def listed(pool="", *, bare_names=True):
    found = textmodels.listed(*scene(OLD, NEW), pool, bare_names=bare_names)
    return [(one.id, one.owned_by, one.created) for one in found.data]


def test_the_list_has_each_text_model_with_the_pool_that_owns_its_name():
    assert listed() == [("poem", "ml/new", 1769904000), ("story", "ml/old", 1767225600)]


def test_the_list_of_a_pool_has_its_own_models():
    assert [one[:2] for one in listed("ml/new")] == [("poem", "ml/new"), ("story", "ml/new")]
    unknown = textmodels.listed(*scene(OLD), "ml/none", bare_names=True)
    assert unknown.http_status == 404


def test_without_bare_names_only_a_pool_has_a_list():
    assert listed(bare_names=False) == []
    assert len(listed("ml/new", bare_names=False)) == 2


@pytest.mark.parametrize(
    ("tables", "pool", "given", "model"),
    [
        pytest.param([OLD, NEW], "", "anything", "anything", id="a-name-is-taken-as-it-is"),
        pytest.param([OLD], "", "", "story", id="the-only-text-model"),
        pytest.param([OLD, NEW], "ml/old", "", "story", id="the-only-text-model-of-the-pool"),
        pytest.param([OLD, NEW], "", "", 400, id="there-are-two"),
        pytest.param([], "", "", 404, id="there-is-none"),
        pytest.param([OLD], "ml/none", "", 404, id="there-is-no-such-pool"),
        pytest.param([OLD], "", "../x", 400, id="a-path-is-no-name"),
    ],
)
def test_a_request_means_the_model_it_names_or_the_only_one(tables, pool, given, model):
    found = textmodels.chosen(*scene(*tables), pool, given, bare_names=True)
    if isinstance(model, int):
        assert found.http_status == model
        assert found.message.startswith("model: ")
    else:
        assert found == model
