"""The table of accepted and refused pools (tests/contract/pool-cases.yaml)."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

TABLE = Path(__file__).resolve().parents[2] / "tests" / "contract" / "pool-cases.yaml"


@dataclass(frozen=True, slots=True)
class PoolCase:
    """A pool and what its refusal must say; None: it is accepted."""

    it: str
    document: Mapping[str, object]
    refused: str | None


def pool_cases() -> list[PoolCase]:
    """Return every case of the table."""
    table = yaml.safe_load(TABLE.read_text("utf-8"))
    return [
        PoolCase(case["it"], _changed(table["base"], case["set"]), case.get("refused"))
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
