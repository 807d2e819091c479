"""One place for each thing: scoring rules, conditions, HTTP routes, chart values, names."""

import ast
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from tidegate_api import chartvalues, names
from tidegate_api.pool import ScoreWeights
from tidegate_operator.core import conditions, score
from tidegate_operator.core.rollout import kstatus

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "tidegate_api": ROOT / "crds" / "tidegate_api",
    "tidegate_operator": ROOT / "operator" / "tidegate_operator",
    "tidegate_router": ROOT / "router" / "tidegate_router",
    "tidegate_worker": ROOT / "worker-image" / "tidegate_worker",
}
ROUTES = {
    "operator/tidegate_operator/app.py": {"/healthz", "/readyz", "/metrics", "/v1/state"},
    "router/tidegate_router/admin.py": {
        "/healthz", "/v1/state", "/workers", "/debug/pick", "/metrics",
    },
    "worker-image/tidegate_worker/app.py": {"/healthz", "/readyz", "/v1/state", "/metrics"},
}  # fmt: skip
ROLLOUTS = "operator/tidegate_operator/core/rollout/kstatus.py"
_REGISTERS = {"add_get", "add_post", "add_put", "add_delete"}
CHARTS = {"operator": ROOT / "charts" / "operator", "router": ROOT / "charts" / "router"}


@cache
def trees(package):
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text("utf-8"))
        for path in sorted(PACKAGES[package].rglob("*.py"))
    }


def definitions(package, name):
    return [
        path
        for path, tree in trees(package).items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == name
    ]


def literals(tree):
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]


def routes(tree):
    """Yield the literal paths that a module registers on an aiohttp router."""
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in _REGISTERS:
            yield node.args[0].value


@pytest.fixture(scope="module")
def tracked():
    listing = subprocess.run(
        ["git", "ls-files"], text=True, capture_output=True, check=True, cwd=ROOT
    )
    return [path for path in listing.stdout.splitlines() if (ROOT / path).is_file()]


def test_each_score_weight_has_a_rule_of_its_own():
    assert set(score.COMPONENTS) == set(ScoreWeights.model_fields)
    assert len(set(score.COMPONENTS.values())) == len(score.COMPONENTS)


@pytest.mark.parametrize("component", ScoreWeights.model_fields)
def test_a_scoring_rule_is_defined_once(component):
    rule = score.COMPONENTS[component]
    defined = definitions("tidegate_operator", rule.__name__)
    assert defined == ["operator/tidegate_operator/core/score.py"]


def test_each_condition_type_has_a_rule_of_its_own():
    assert set(conditions.CONDITIONS) == set(names.ConditionType)
    assert len(set(conditions.CONDITIONS.values())) == len(conditions.CONDITIONS)


@pytest.mark.parametrize("condition", names.ConditionType)
def test_a_condition_is_decided_in_one_file(condition):
    rule = conditions.CONDITIONS[condition]
    of_pools = set(definitions("tidegate_operator", rule.__name__)) - {ROLLOUTS}
    assert of_pools == {"operator/tidegate_operator/core/conditions.py"}


def test_each_condition_of_a_rollout_has_a_rule_or_a_status_of_its_own():
    refusals = {names.RolloutCondition.CONFLICT, names.RolloutCondition.INVALID_SPEC}
    assert set(kstatus.CONDITIONS) == set(names.RolloutCondition) - refusals
    for rule in kstatus.CONDITIONS.values():
        assert ROLLOUTS in definitions("tidegate_operator", rule.__name__)


# Ready is also a condition of pods, which is read by that name.
@pytest.mark.parametrize("condition", set(names.ConditionType) - {names.ConditionType.READY})
def test_a_condition_type_is_spelt_in_one_file(condition):
    spelt = [
        path
        for package in PACKAGES
        for path, tree in trees(package).items()
        if str(condition) in literals(tree)
    ]
    assert spelt == ["crds/tidegate_api/names.py"]


@pytest.mark.parametrize("program", ["tidegate_operator", "tidegate_router", "tidegate_worker"])
def test_each_http_route_is_registered_in_one_file(program):
    found = {path: Counter(routes(tree)) for path, tree in trees(program).items()}
    registered = {path: set(counts) for path, counts in found.items() if counts}
    expected = {path: paths for path, paths in ROUTES.items() if program in path}
    assert registered == expected
    assert all(count == 1 for counts in found.values() for count in counts.values())


def test_labels_and_annotations_are_spelt_in_one_file():
    own = re.compile(rf"^{re.escape(names.GROUP)}/(?!{names.VERSION}$)[a-z-]+$")
    spelt = [
        (path, value)
        for package in PACKAGES
        for path, tree in trees(package).items()
        for value in literals(tree)
        if isinstance(value, str) and own.match(value)
    ]
    assert {path for path, _ in spelt} == {"crds/tidegate_api/names.py"}


def test_a_metric_is_declared_in_its_programs_telemetry():
    prefixed = re.compile(r"^tidegate_(operator|router|worker)_[a-z0-9_]+$")
    for package in ("tidegate_operator", "tidegate_router", "tidegate_worker"):
        for path, tree in trees(package).items():
            metrics = [v for v in literals(tree) if isinstance(v, str) and prefixed.match(v)]
            assert not metrics or path.endswith("/telemetry.py"), (path, metrics)


def test_the_umbrella_defines_no_value_of_a_part():
    umbrella = yaml.safe_load((ROOT / "values.yaml").read_text("utf-8"))
    for part in ("crds", *CHARTS):
        assert list(umbrella[part]) == ["enabled"]


@pytest.mark.parametrize("part", CHARTS)
def test_each_chart_value_is_used_by_a_template_of_its_chart(part):
    templates = [
        path.read_text("utf-8")
        for folder in (CHARTS[part], ROOT)
        for path in (folder / "templates").iterdir()
    ]
    for value in chartvalues.values((CHARTS[part] / "values.yaml").read_text("utf-8")):
        # The helper takes an image whole.
        path = "image" if value.path.startswith("image.") else value.path
        used = re.compile(rf"\.Values\.{re.escape(path)}\b")
        assert any(used.search(text) for text in templates), value.path


def test_no_package_shadows_the_standard_library():
    for folder in ("operator", "router", "crds", "worker-image", "tests", "e2e"):
        assert not (ROOT / folder / "__init__.py").exists()
    assert not (ROOT / "tests" / "operator").exists()
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_file_names_of_tests_are_unique(tracked):
    counts = Counter(Path(path).name for path in tracked if "/test_" in path)
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_file_names_a_machine_or_a_package_registry(tracked):
    # In halves, so that this file holds none of them.
    words = ["/" + "work/", "/" + "root/", "pypi" + ".org", "pythonhosted" + ".org"]
    words += ["proxy.golang" + ".org", "registry.npmjs" + ".org", "deb.debian" + ".org"]
    found = []
    for path in tracked:
        text = (ROOT / path).read_bytes()
        found += [(path, word) for word in words if word.encode() in text]
    assert found == []


def test_source_files_have_at_most_500_lines(tracked):
    code = [path for path in tracked if path.endswith(".py")]
    long = [path for path in code if len((ROOT / path).read_text("utf-8").splitlines()) > 500]
    assert long == []
