"""InPlace: the canary lives in stable's workers, and stays there once promoted."""

import json

import pytest


@pytest.fixture
def inside(rolled):
    """Returns a pool whose models are fetched, so that a second revision fits inside."""
    rolled.edit_rollout(template=rolled.model(1))
    rolled.until("Healthy")
    rolled.run(30)
    rolled.edit_rollout(surge="InPlace")
    rolled.run(3)
    return rolled


def documents(one):
    return [
        json.loads(body["data"]["models.json"])
        for (kind, _), body in one.others.items()
        if kind == "ConfigMap"
    ]


def test_an_obstacle_names_the_field(rolled):
    rolled.edit_rollout(template={"image": "registry.example/other:1"}, surge="InPlace")
    rolled.run(10)
    assert rolled.told("Stalled") == ("True", "InPlaceNotPossible")
    assert "spec.template.image" in rolled.rollout.message
    assert len(rolled.deployments) == 1


def test_a_canary_inside_needs_no_new_worker(inside):
    before, first = inside.uids, inside.rollout.stable_revision
    inside.edit_rollout(template=inside.model(2, dynamicBatching={"maxQueueDelay": "1ms"}))
    while inside.rollout.verified_weight != 20:
        inside.tick()
    (document,) = documents(inside)
    assert document["revision"] == first
    assert document["alongside"]["revision"] == inside.rollout.canary_revision
    served = [s for w in inside.published.spec.workers for s in w.serves]
    aliases = {s.loaded_as for s in served if s.revision == inside.rollout.canary_revision}
    assert aliases == {f"resnet50--{inside.rollout.canary_revision}"}
    inside.until("Healthy")
    inside.run(30)
    assert inside.uids == before
    assert len(inside.deployments) == 1
    (document,) = documents(inside)
    assert document["revision"] == inside.rollout.stable_revision != first
    assert "alongside" not in document


def test_no_weight_moves_before_every_agent_has_loaded_it(inside):
    inside.loads = False
    inside.edit_rollout(template=inside.model(2))
    inside.run(20)
    assert inside.rollout.canary_weight == 0
    inside.loads = True
    inside.until("Healthy")


def test_a_bad_canary_inside_is_unloaded(inside):
    before, first = inside.uids, inside.rollout.stable_revision
    inside.edit_rollout(template=inside.model(2))
    inside.tick()
    inside.errors[inside.rollout.canary_revision] = 0.5
    inside.until("Degraded")
    inside.run(10)
    (document,) = documents(inside)
    assert "alongside" not in document
    assert document["revision"] == first
    assert inside.uids == before


def test_one_in_place_after_another_and_back(inside):
    before, first = inside.uids, inside.rollout.stable_revision
    for number in (2, 3):
        inside.edit_rollout(template=inside.model(number))
        inside.until("Healthy")
        inside.run(5)
    assert inside.uids == before
    inside.edit_rollout(template=inside.model(1))
    inside.until("Healthy")
    assert inside.rollout.stable_revision == first
    assert inside.uids == before
    inside.run(5)
    (document,) = documents(inside)
    assert document["revision"] == first


def test_what_was_promoted_inside_is_replaced_by_workers_of_their_own(inside):
    inside.edit_rollout(template=inside.model(2))
    inside.until("Healthy")
    inside.run(5)
    before = inside.uids
    inside.edit_rollout(template=inside.model(3), surge="Surge")
    inside.until("Healthy")
    inside.run(40)
    assert not inside.uids & before
    assert len(inside.deployments) == 1
    assert len(inside.uids) == 4


def test_undo_to_the_revision_that_the_workers_were_made_for(inside):
    first = inside.rollout.stable_revision
    inside.edit_rollout(template=inside.model(2))
    inside.until("Healthy")
    inside.run(5)
    inside.annotate("undo", f"{first}@2026-01-03T00:00:00Z")
    inside.until("Degraded")
    inside.run(40)
    assert inside.shares() == {first: 100}
    assert len(inside.uids) == 4
