"""Every ModelRollout of examples/ passes the linter with its pool, and does what its words say."""

from pathlib import Path

import pytest
import yaml

from tidegate_api.merge import merge_template
from tidegate_api.validation import parse_rollout
from tidegate_cli.core.lint import Source, lint
from tidegate_operator.core.sources import plan_sources
from tidegate_operator.core.workersets import WorkerTemplate

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    (f"{path.relative_to(ROOT)}", document)
    for path in sorted((ROOT / "examples").rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text("utf-8"))
    if document and document["apiVersion"] == "tidegate.dev/v1alpha1"
]
ROLLOUTS = [item for item in DOCUMENTS if item[1]["kind"] == "ModelRollout"]


def pool_of(rollout):
    (found,) = (
        document
        for _, document in DOCUMENTS
        if document["kind"] == "InferencePool"
        and document["metadata"].get("namespace") == rollout["metadata"]["namespace"]
        and document["metadata"]["name"] == rollout["spec"]["poolRef"]["name"]
    )
    return found


def test_there_are_examples_of_rollouts():
    assert {place.split("/")[1] for place, _ in ROLLOUTS} == {"canary", "rollout"}


def test_the_linter_has_nothing_to_say_of_the_examples():
    assert list(lint([Source(place, document) for place, document in DOCUMENTS], None)) == []


def test_the_linter_would_find_a_model_that_the_pool_lacks():
    place, rollout = ROLLOUTS[0]
    spec = {**rollout["spec"], "template": {"models": [{"name": "nobody"}]}}
    broken = [Source(place, {**rollout, "spec": spec}), Source(place, pool_of(rollout))]
    assert any("nobody" in str(finding) for finding in lint(broken, None))


@pytest.mark.parametrize(("place", "rollout"), ROLLOUTS, ids=[place for place, _ in ROLLOUTS])
def test_an_example_that_asks_for_in_place_mounts_nothing_new(place, rollout):
    pool, parsed = pool_of(rollout), parse_rollout(rollout)
    before = pool["spec"]["template"]
    after, _ = merge_template(before, rollout["spec"].get("template", {}))
    old, new = (WorkerTemplate.model_validate(item).models for item in (before, after))
    same = plan_sources(old).mounts == plan_sources(new).mounts
    assert same or parsed.spec.surge != "InPlace", place
