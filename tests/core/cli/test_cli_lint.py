import copy

import pytest

from tidegate_api.rollout import Analysis, Step
from tidegate_cli.core.lint import Level, Source, is_ours, lint, too_short


@pytest.fixture
def files(document, pool_json):
    """Return `files(*documents)`; without any, a pool and its rollout that are right."""

    def make(*documents):
        given = documents or (pool_json(), document(analysis={"successRate": {"min": 0.9}}))
        return [Source(f"file {index}", one) for index, one in enumerate(given)]

    return make


def found(sources, rate=None):
    return [str(finding) for finding in lint(sources, rate)]


def test_a_pool_and_its_rollout_that_are_right_have_no_findings(files):
    assert found(files()) == []


def test_a_problem_names_file_object_and_field(files, document):
    (line, *_) = found(files(document(steps=[{"setWeight": 101}])))
    assert line.startswith(
        "file 0: error: modelrollouts.tidegate.dev ml/vision: spec.steps[0].setWeight: "
    )


def test_another_version_is_an_error(files, pool_json):
    old = {**pool_json(), "apiVersion": "tidegate.dev/v1"}
    assert found(files(old)) == [
        (
            "file 0: error: inferencepools.tidegate.dev ml/vision: apiVersion: expected"
            " tidegate.dev/v1alpha1"
        )
    ]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("spec", "template", "models", 0, "maxBatchsize"), 4, "template.models[0].maxBatchsize"),
        (("spec", "scaling"), {}, "scaling"),
        (("spec", "drain"), {"timout": "3s"}, "drain.timout"),
    ],
)
def test_a_field_that_does_not_exist_is_an_error(files, pool_json, path, value, field):
    changed = copy.deepcopy(pool_json())
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    (line,) = found(files(changed))
    assert line.endswith(f"spec.{field}: no such field")


@pytest.mark.parametrize(
    "spec",
    [
        {"template": {"models": [{"name": "a", "config": {"anything": {"at": "all"}}}]}},
        {"template": {"pod": {"env": [{"name": "X", "value": "y"}], "labels": {"team": "x"}}}},
        {"match": {"headers": {"x-canary": "always"}}},
    ],
)
def test_free_fields_are_free(files, document, spec):
    lines = found(files(document(**spec)))
    assert not [line for line in lines if "no such field" in line]


def test_a_model_that_the_pool_lacks_is_an_error(files, document, pool_json):
    asked = document(template={"models": [{"name": "zz"}]}, steps=[])
    (line,) = found(files(pool_json(), asked))
    assert "spec.template.models[0].name: the pool has no model zz, only a" in line


def test_a_merge_that_the_pool_cannot_run_is_an_error_in_the_pool_s_words(
    files, document, pool_json
):
    instances = [{"kind": "GPU", "count": 1}]
    asked = document(template={"models": [{"name": "a", "instances": instances}]}, steps=[])
    (line,) = found(files(pool_json(), asked))
    assert "error: modelrollouts" in line
    assert "merged over inferencepools.tidegate.dev ml/vision: spec.accelerators[0]" in line


def test_a_rollout_whose_pool_is_elsewhere_is_a_warning(files, document):
    (finding,) = lint(files(document(steps=[])), None)
    assert finding.level is Level.WARNING
    assert "ml/vision is not among the files" in finding.message


def test_the_pool_of_another_namespace_is_another_pool(files, document, pool_json):
    elsewhere = pool_json()
    elsewhere["metadata"]["namespace"] = "prod"
    (line,) = found(files(elsewhere, document(steps=[])))
    assert "not among the files" in line


def test_a_broken_pool_is_told_once_and_no_merge_is_tried(files, document, pool_json):
    broken = pool_json()
    broken["spec"]["replicas"] = -1
    (line,) = found(files(broken, document(steps=[])))
    assert "spec.replicas" in line


def test_steps_without_analysis_are_a_warning(files, document, pool_json):
    (line,) = found(files(pool_json(), document()))
    assert "spec.analysis: absent" in line


def test_two_rollouts_for_one_pool_are_a_warning(files, document, pool_json):
    second = document(steps=[])
    second["metadata"]["name"] = "other"
    (line,) = found(files(pool_json(), document(steps=[]), second))
    assert "file 2: warning: modelrollouts.tidegate.dev ml/other: spec.poolRef: " in line


def test_steps_too_short_for_the_traffic_are_a_warning(files, document, pool_json):
    asked = document(analysis={"successRate": {"min": 0.9}, "minRequests": 100})
    lines = found(files(pool_json(), asked), rate=10)
    assert len(lines) == 1
    assert "spec.steps[1]: at 10 requests/s, 5 % of them in 110 s are 55" in lines[0]
    assert lines[0].endswith("(StepTooShortForTraffic)")
    assert found(files(pool_json(), asked), rate=20) == []


@pytest.mark.parametrize(
    ("steps", "analysis", "count"),
    [
        pytest.param([{"setWeight": 5}, {"pause": {}}], {}, 0, id="600 s at a gate suffice"),
        pytest.param([{"setWeight": 5}], {}, 0, id="600 s without a pause suffice"),
        pytest.param(
            [{"setWeight": 5}, {"pause": {}}], {"maxWindow": "1m"}, 1, id="maxWindow is the limit",
        ),
        pytest.param(
            [{"setWeight": 95}, {"pause": {"duration": "60s"}}], {}, 1,
            id="stable needs its minRequests too",
        ),
        pytest.param(
            [{"setWeight": 50}, {"pause": {"duration": "30s"}}, {"pause": {"duration": "19s"}}],
            {}, 1, id="each pause is a step of its own",
        ),
        pytest.param([{"setWeight": 0}, {"pause": {"duration": "1s"}}], {}, 0, id="no weight"),
        pytest.param(
            [{"setWeight": 5}, {"pause": {"duration": "1s"}}], {"startingStep": 2}, 0,
            id="before startingStep nothing is judged",
        ),
        pytest.param(
            [{"setWeight": 50}, {"pause": {"duration": "5s"}}], {}, 1,
            id="initialDelay is longer than the pause",
        ),
    ],
)  # fmt: skip
def test_when_a_step_is_too_short_for_ten_requests_a_second(steps, analysis, count):
    parsed = [Step.model_validate(step) for step in steps]
    assert len([*too_short(parsed, Analysis.model_validate(analysis), 10.0)]) == count


@pytest.mark.parametrize(
    ("document", "ours"),
    [
        ({"apiVersion": "tidegate.dev/v1alpha1", "kind": "InferencePool"}, True),
        ({"apiVersion": "tidegate.dev/v9", "kind": "ModelRollout"}, True),
        ({"apiVersion": "tidegate.dev/v1alpha1", "kind": "RouteTable"}, False),
        ({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool"}, False),
        ({}, False),
    ],
)
def test_only_our_kinds_are_judged(document, ours):
    assert is_ours(document) is ours
