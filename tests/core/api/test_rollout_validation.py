import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api import crd, rules
from tidegate_api.rolloutchecks import ROLLOUT_CHECKS
from tidegate_api.validation import (
    InvalidObjectError,
    InvalidPoolError,
    InvalidRolloutError,
    parse_rollout,
    problems_of_merged,
)
from tidegate_e2e.poolcases import pool_cases, rollout_cases

CASES = rollout_cases()
POOL = pool_cases()[0].document


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.it)
def test_rollout(case):
    if case.refused is None:
        assert parse_rollout(case.document).metadata.name == "vision"
        return
    with pytest.raises(InvalidRolloutError) as caught:
        parse_rollout(case.document)
    assert case.refused in str(caught.value)


@pytest.mark.parametrize("rule", [rule for rule, _ in ROLLOUT_CHECKS], ids=lambda r: r.message)
def test_every_rule_of_a_rollout_is_broken_by_a_case_of_the_table(rule):
    def breaks(case):
        try:
            parse_rollout(case.document)
        except InvalidRolloutError as error:
            return any(problem.expectation == rule.message for problem in error.problems)
        return False

    assert any(map(breaks, CASES))


def test_every_rule_of_the_rollout_crd_has_its_twin():
    def found(schema):
        yield from schema.get("x-kubernetes-validations", ())
        for value in schema.values():
            if isinstance(value, dict):
                yield from found(value)

    version = crd.documents()["tidegate.dev_modelrollouts.yaml"]["spec"]["versions"][0]
    in_crd = {rule["message"] for rule in found(version["schema"])}
    in_python = {rule.message for rule, _ in ROLLOUT_CHECKS} - {rules.UNIQUE_NAMES.message}
    assert in_crd - in_python == {rules.POOL_FIXED.message}, "that one compares two versions"
    assert in_python <= in_crd


def test_the_error_names_the_rollout_and_shares_its_base_with_the_pool_s():
    with pytest.raises(InvalidObjectError) as caught:
        parse_rollout({"metadata": {"namespace": "ml", "name": "vision"}, "spec": {}})
    message = "modelrollouts.tidegate.dev ml/vision: spec.poolRef: Field required"
    assert str(caught.value) == message
    assert not isinstance(caught.value, InvalidPoolError)


@given(secret=st.text(min_size=1).map(lambda text: f"hunter2-{text}"))
def test_no_value_of_a_rollout_is_quoted(secret):
    spec = {"poolRef": {"name": "p"}, "template": {"pod": {"env": [secret]}}, "paused": secret}
    with pytest.raises(InvalidRolloutError) as caught:
        parse_rollout({"metadata": {"name": "r"}, "spec": spec})
    assert secret not in str(caught.value)


def test_a_merged_template_that_the_pool_can_run_has_no_problems():
    assert problems_of_merged(POOL, POOL["spec"]["template"]) == ()


def test_a_merged_template_is_judged_with_the_pool_s_own_classes():
    model = {**POOL["spec"]["template"]["models"][0], "instances": [{"kind": "GPU", "count": 1}]}
    problems = problems_of_merged(POOL, {"models": [model]})
    assert [problem.field for problem in problems] == ["spec.accelerators[1]"]


@pytest.mark.parametrize("pool", [{}, {"spec": None}, {"metadata": {"name": "p"}, "spec": []}])
def test_a_pool_that_is_no_pool_is_a_problem_and_no_crash(pool):
    assert problems_of_merged(pool, {"models": []})
