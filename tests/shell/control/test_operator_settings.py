"""Flags, environment, defaults, and what wrong ones say."""

import re
from pathlib import Path

import pytest

from tidegate_operator.settings import read
from tidegate_operator.telemetry import Telemetry


def test_defaults_watch_everything_and_wait_for_no_router():
    found = read([], {})
    assert (found.watch_namespaces, found.router_service) == ((), "")
    assert (found.port, found.scrape_interval_s, found.score_writes_per_second) == (9092, 1.0, 5.0)
    assert found.network_policy is True


def test_a_flag_goes_before_the_environment_and_that_before_the_default():
    environment = {"TIDEGATE_RELEASE": "blue", "TIDEGATE_POD_NAMESPACE": "system"}
    found = read(["--release", "green"], environment)
    assert (found.release, found.namespace) == ("green", "system")


def test_an_empty_variable_counts_as_absent():
    assert read([], {"TIDEGATE_PORT": "", "TIDEGATE_NETWORK_POLICY": ""}).port == 9092


def test_namespaces_come_as_a_list():
    assert read(["--watch-namespaces", "a, b,,c"], {}).watch_namespaces == ("a", "b", "c")


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [("port", "http", "invalid int value"), ("network-policy", "yes", "true or false"),
     ("router-service", "router", "namespace/name"), ("router-service", "/", "namespace/name"),
     ("score-writes-per-second", "0", "above 0"), ("score-writes-per-second", "nan", "above 0"),
     ("scrape-interval", "-1", "above 0"), ("prometheus-url", "prometheus:9090", "http://"),
     ("log-level", "loud", "one of debug")],
)  # fmt: skip
def test_a_wrong_value_ends_the_start_and_names_the_flag(flag, value, expected, capsys):
    variable = f"TIDEGATE_{flag.upper().replace('-', '_')}"
    with pytest.raises(SystemExit):
        read([], {variable: value})
    said = capsys.readouterr().err
    assert f"--{flag}" in said
    assert expected in said


def test_help_names_every_variable(capsys):
    with pytest.raises(SystemExit):
        read(["--help"], {})
    said = capsys.readouterr().out
    for name in ("POD_NAME", "WORKER_IMAGE", "ROUTER_SERVICE", "SCORE_WRITES_PER_SECOND", "PORT"):
        assert f"TIDEGATE_{name}]" in said


PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "operator.md").read_text()


def test_the_page_lists_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit):
        read(["--help"], {})
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    rows = dict(re.findall(r"^\| `(--[a-z-]+)` \| *`?([^|`]*?)`? *\|", PAGE, re.MULTILINE))
    assert set(rows) == flags
    for flag, default in rows.items():
        # The default as a flag changes nothing.
        assert read([flag, default.strip()], {}) == read([], {}), flag


def test_the_page_lists_every_metric():
    documented = set(re.findall(r"^\| `(tidegate_operator_\w+)", PAGE, re.MULTILINE))
    declared = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Telemetry().registry.collect()
    }
    assert documented == declared
