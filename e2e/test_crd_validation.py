"""The API server accepts and refuses the same objects as the rules' twins in Python."""

import json

import pytest

from tidegate_e2e.poolcases import pool_cases, rollout_cases

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]


@pytest.mark.parametrize("case", pool_cases(), ids=lambda case: case.it)
def test_pool(release, case):
    judge(release, case)


@pytest.mark.parametrize("case", rollout_cases(), ids=lambda case: case.it)
def test_rollout(release, case):
    judge(release, case)


def judge(release, case):
    result = release.kubectl(
        "create", "--dry-run=server", "-f", "-", stdin=json.dumps(case.document), check=False
    )
    said = result.stdout + result.stderr
    if case.refused is None:
        assert result.returncode == 0, said
    else:
        assert result.returncode != 0, said
        assert case.refused in said


def test_an_unknown_field_is_refused_by_name(release):
    base = pool_cases()[0].document
    document = {**base, "spec": {**base["spec"], "scaling": {"maxReplicas": 3}}}
    result = release.kubectl(
        "create", "--dry-run=server", "-f", "-", stdin=json.dumps(document), check=False
    )
    assert result.returncode != 0
    assert 'unknown field "spec.scaling"' in result.stderr


def test_no_default_appears_under_template_or_accelerators(release):
    base = pool_cases()[0].document
    result = release.kubectl(
        "create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(base)
    )
    stored = json.loads(result.stdout)["spec"]
    assert stored["template"] == base["spec"]["template"]
    assert stored["accelerators"] == base["spec"]["accelerators"]
    assert stored["replicas"] == 1
    assert stored["routing"]["retry"]["attempts"] == 2
