"""What exists is documented: conditions, events, reasons of failure, metrics, dropped reasons."""

import re
from pathlib import Path

import pytest

from tidegate_api.names import ConditionType, EventReason, RolloutCondition, RolloutEventReason

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text("utf-8")
TELEMETRY = (
    "operator/tidegate_operator/telemetry.py",
    "router/tidegate_router/telemetry.py",
    "worker-image/tidegate_worker/telemetry.py",
)
METRIC = re.compile(r'"(tidegate_(?:operator|router|worker)_[a-z_]+[a-z])"')


@pytest.mark.parametrize(
    "name", [*ConditionType, *EventReason, *RolloutCondition, *RolloutEventReason]
)
def test_a_condition_or_event_is_in_the_operations_page(name):
    assert f"`{name.value}`" in OPERATIONS


@pytest.mark.parametrize("path", TELEMETRY)
def test_every_metric_is_in_the_operations_page(path):
    declared = set(METRIC.findall((ROOT / path).read_text("utf-8")))
    assert declared
    assert {name for name in declared if name not in OPERATIONS} == set()


def test_a_documented_metric_exists():
    source = "".join((ROOT / path).read_text("utf-8") for path in TELEMETRY)
    named = set(re.findall(r"`(tidegate_[a-z_]+[a-z])", OPERATIONS))
    names = {re.sub(r"_total$", "", name) for name in named}
    assert {name for name in names if name not in source} == set()
