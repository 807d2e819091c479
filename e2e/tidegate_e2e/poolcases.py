"""The tables of accepted and refused objects (tests/contract/{pool,rollout}-cases.yaml)."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

TABLES = Path(__file__).resolve().parents[2] / "tests" / "contract"


@dataclass(frozen=True, slots=True)
class Case:
    """An object and what its refusal must say; None: it is accepted."""

    it: str
    document: Mapping[str, object]
    refused: str | None


def pool_cases() -> list[Case]:
    """Return every case of an InferencePool."""
    return _cases(TABLES / "pool-cases.yaml")


def rollout_cases() -> list[Case]:
    """Return every case of a ModelRollout."""
    return _cases(TABLES / "rollout-cases.yaml")


def _cases(path: Path) -> list[Case]:
    table = yaml.safe_load(path.read_text("utf-8"))
    return [
        Case(case["it"], _changed(table["base"], case["set"]), case.get("refused"))
        for case in table["cases"]
    ]


def _changed(base: Mapping[str, object], changes: Mapping[str, object]) -> Mapping[str, object]:
    document = copy.deepcopy(dict(base))
    for path, value in changes.items():
        *parents, last = path.split(".")
        node: object = document
        for name in parents:
            node = _entry(node, name)
        fields = cast("dict[str, object]", node)
        if value is None:
            del fields[last]
        else:
            fields[last] = value
    return document


def _entry(node: object, name: str) -> object:
    if isinstance(node, list):
        return node[int(name)]
    return cast("dict[str, object]", node)[name]
