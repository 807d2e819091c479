"""What the operator publishes of routing.queue, routing.tiers and responseCache."""

import json

import pytest

from tidegate_api.routetable import QueuePolicy, TierPolicy
from tidegate_api.state import Traits
from tidegate_api.template import Model
from tidegate_operator.core.table import _cache_ttl_s

GOLD_AND_BRONZE = [{"name": "gold", "p99Target": "50ms", "weight": 8}, {"name": "bronze"}]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, QueuePolicy(), id="nothing-is-the-defaults"),
        pytest.param(
            {"maxRequests": 7, "maxBytes": "1Ki", "maxWait": "250ms", "noWorkersTTL": "2m"},
            QueuePolicy(
                max_requests=7, max_bytes=1024, max_wait_s=0.25, no_workers_ttl_s=120.0
            ),
            id="texts-are-numbers",
        ),
        pytest.param(
            {"maxWait": "0s", "noWorkersTTL": "0s"},
            QueuePolicy(max_wait_s=0.0, no_workers_ttl_s=0.0),
            id="zero-is-not-absent",
        ),
    ],
)  # fmt: skip
def test_the_queue_is_published(world, make, given, expected):
    one = world(raw=make.pool(routing={"queue": given}))
    one.tick()
    assert one.published.spec.policy.queue == expected


def test_tiers_are_published_in_their_order(world, make):
    routing = {"tiers": GOLD_AND_BRONZE, "trustTierHeader": True}
    one = world(raw=make.pool(routing=routing))
    one.tick()
    policy = one.published.spec.policy
    assert policy.tiers == [
        TierPolicy(name="gold", weight=8, p99_target_s=0.05),
        TierPolicy(name="bronze", weight=1),
    ]
    assert policy.trust_tier_header


def test_a_changed_queue_makes_no_revision(world):
    one = world()
    one.run(8)
    pods = set(one.pods)
    one.edit(routing={"queue": {"maxRequests": 9}, "tiers": GOLD_AND_BRONZE})
    one.run(8)
    assert set(one.pods) == pods
    assert one.published.spec.policy.queue.max_requests == 9


def test_a_pool_at_zero_still_says_what_it_serves_and_where_requests_go(world):
    one = world()
    one.run(8)
    weights = one.published.spec.weights
    one.edit(replicas=0)
    one.run(30)
    spec = one.published.spec
    assert spec.workers == []
    assert spec.models == ["resnet50"]
    assert spec.weights == weights


def test_a_response_cache_is_a_revision_whose_pods_are_the_same(world):
    one = world()
    one.run(8)
    before = _rendered(one)
    assert [item.cache_ttl_s for item in one.published.spec.workers[0].serves] == [0.0]
    template = json.loads(json.dumps(one.raw["spec"]["template"]))
    template["models"][0]["responseCache"] = {"ttl": "90s"}
    one.edit(template=template)
    one.run(40)
    assert one.status["desiredRevision"] not in before
    assert [item.cache_ttl_s for item in one.published.spec.workers[0].serves] == [90.0]
    assert "responseCache" not in json.dumps(_rendered(one))
    assert _anonymous(_rendered(one)) == _anonymous(before)


def _rendered(one):
    return {
        deployment["spec"]["template"]["metadata"]["labels"]["tidegate.dev/revision"]: deployment
        for deployment in one.deployments.values()
    }


def _anonymous(rendered):
    """Return pod templates without the names of revision and set."""
    texts = []
    for revision, deployment in rendered.items():
        template = deployment["spec"]["template"]
        name = template["metadata"]["labels"]["tidegate.dev/worker-set"]
        texts.append(json.dumps(template, sort_keys=True).replace(name, "S").replace(revision, "R"))
    return texts


@pytest.mark.parametrize(
    ("fields", "traits", "expected"),
    [
        pytest.param({}, {}, 60.0, id="kept"),
        pytest.param({"idempotent": False}, {}, 0.0, id="not-where-answers-differ"),
        pytest.param({}, {"sequence": True}, 0.0, id="not-of-a-sequence"),
        pytest.param({}, {"decoupled": True}, 0.0, id="not-of-a-decoupled-model"),
        pytest.param({"idempotent": True}, {"sequence": True}, 0.0, id="whatever-its-owner-says"),
        pytest.param({"responseCache": None}, {}, 0.0, id="not-unless-asked-for"),
    ],
)
def test_answers_are_cached_only_where_a_second_run_does_no_harm(fields, traits, expected):
    raw = {"name": "m", "source": {"uri": "file:///m"}, "responseCache": {"ttl": "1m"}}
    model = Model.model_validate(raw | fields)
    assert _cache_ttl_s(model, Traits(**traits)) == expected
