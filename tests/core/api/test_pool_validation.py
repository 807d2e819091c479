import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api import crd, rules
from tidegate_api.validation import CHECKS, InvalidPoolError, parse_pool
from tidegate_e2e.poolcases import pool_cases

CASES = pool_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.it)
def test_pool(case):
    if case.refused is None:
        assert parse_pool(case.document).metadata.name == case.document["metadata"]["name"]
        return
    with pytest.raises(InvalidPoolError) as caught:
        parse_pool(case.document)
    assert case.refused in str(caught.value)


@pytest.mark.parametrize("rule", [rule for rule, _ in CHECKS], ids=lambda rule: rule.message)
def test_every_rule_is_broken_by_a_case_of_the_table(rule):
    def breaks(case):
        try:
            parse_pool(case.document)
        except InvalidPoolError as error:
            return any(problem.expectation == rule.message for problem in error.problems)
        return False

    assert any(map(breaks, CASES))


def test_every_rule_of_the_crd_has_its_twin():
    def found(schema):
        yield from schema.get("x-kubernetes-validations", ())
        for value in schema.values():
            if isinstance(value, dict):
                yield from found(value)

    version = crd.documents()["tidegate.dev_inferencepools.yaml"]["spec"]["versions"][0]
    in_crd = {rule["message"] for rule in found(version["schema"])}
    in_python = {rule.message for rule, _ in CHECKS} - {rules.UNIQUE_NAMES.message}
    assert in_crd == in_python


def test_the_error_names_object_field_and_expectation():
    document = {"metadata": {"namespace": "ml", "name": "vision"}, "spec": {"replicas": -1}}
    with pytest.raises(InvalidPoolError) as caught:
        parse_pool(document)
    message = str(caught.value)
    assert message.startswith("inferencepools.tidegate.dev ml/vision: ")
    assert "spec.replicas: Input should be greater than or equal to 0" in message
    assert "spec.template: Field required" in message


def test_all_problems_are_told_at_once():
    case = next(case for case in CASES if case.it == "refuses config.name")
    document = {**case.document, "metadata": {"name": "UPPER"}}
    with pytest.raises(InvalidPoolError) as caught:
        parse_pool(document)
    fields = [problem.field for problem in caught.value.problems]
    assert fields == ["metadata.name", "spec.template.models[0].config.name"]


@given(secret=st.text(min_size=1).map(lambda text: f"hunter2-{text}"))
def test_no_value_is_quoted(secret):
    base = CASES[0].document
    spec = {**base["spec"], "drain": {"timeout": secret}, "paused": secret}
    spec["template"] = {**base["spec"]["template"], "pod": {"env": [secret]}}
    with pytest.raises(InvalidPoolError) as caught:
        parse_pool({**base, "spec": spec})
    assert secret not in str(caught.value)


@pytest.mark.parametrize("document", [{}, {"metadata": None}, {"metadata": []}])
def test_a_document_without_metadata_is_an_error_with_a_name(document):
    with pytest.raises(InvalidPoolError, match="without a name"):
        parse_pool(document)
