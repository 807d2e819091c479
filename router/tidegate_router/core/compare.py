"""Whether a canary answers like stable (design.md section 3, mirror).

* Floats of two or more columns (the last axis): the column of the highest value in each row, top-1.
* Other floats: within TOLERANCE_RATIO of each other.
* Integers and booleans exactly, BYTES byte for byte.
* The same outputs with the same datatypes and shapes.
The largest absolute difference of floats is told beside it and decides nothing by itself.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidegate_router.core.tensors import FLOATS, Answer, AnswerError, Tensor, Tensors, Value

TOLERANCE_RATIO = 1e-3
_NEAR_ZERO = 1e-6  # below this a ratio says nothing


@dataclass(frozen=True, slots=True)
class Comparison:
    """`difference`: the largest absolute one of any float, finite; `reason` empty: they agree."""

    reason: str = ""
    difference: float = 0.0


def judge(stable: Answer, canary: Answer) -> Comparison | None:
    """Compare two complete answers; None if stable's own cannot be read."""
    if stable.body == canary.body:
        return Comparison()
    try:
        wanted = stable.tensors()
    except AnswerError:
        return None
    try:
        found = canary.tensors()
    except AnswerError as error:
        return Comparison(f"no answer that can be read: {error}")
    return compare(wanted, found)


def compare(stable: Tensors, canary: Tensors) -> Comparison:
    """Compare every output; the first difference is the reason."""
    if set(stable) != set(canary):
        return Comparison("other outputs")
    results = [_compare(stable[name], canary[name], name) for name in stable]
    reasons = [one.reason for one in results if one.reason]
    difference = max((one.difference for one in results), default=0.0)
    return Comparison(reasons[0] if reasons else "", difference)


def _compare(stable: Tensor, canary: Tensor, name: str) -> Comparison:
    if (stable.datatype, stable.shape) != (canary.datatype, canary.shape):
        return Comparison(f"{name}: another datatype or shape")
    if stable.datatype not in FLOATS:
        same = list(stable.values) == list(canary.values)
        return Comparison("" if same else f"{name}: another value")
    wanted, found = _floats(stable.values), _floats(canary.values)
    difference = largest_difference(wanted, found)
    columns = stable.shape[-1] if stable.shape else 1
    if columns >= 2:
        return Comparison("" if _same_top(wanted, found, columns) else f"{name}: top-1", difference)
    close = all(_close(one, other) for one, other in zip(wanted, found, strict=True))
    return Comparison("" if close else f"{name}: another value", difference)


def _floats(values: Sequence[Value]) -> list[float]:
    return [float(value) for value in values]


def _same_top(stable: Sequence[float], canary: Sequence[float], columns: int) -> bool:
    """Whether each row has its highest value in the same column; equal highest ones are as good."""
    for at in range(0, len(stable), columns):
        wanted, found = stable[at : at + columns], canary[at : at + columns]
        if [math.isnan(one) for one in wanted] != [math.isnan(one) for one in found]:
            return False
        top = _top(found)
        if top is not None and wanted[top] < max(_numbers(wanted)):
            return False
    return True


def _top(row: Sequence[float]) -> int | None:
    known = _numbers(row)
    return row.index(max(known)) if known else None


def _numbers(row: Iterable[float]) -> list[float]:
    return [one for one in row if not math.isnan(one)]


def _close(stable: float, canary: float) -> bool:
    if math.isnan(stable) or math.isnan(canary):
        return math.isnan(stable) and math.isnan(canary)
    return math.isclose(stable, canary, rel_tol=TOLERANCE_RATIO, abs_tol=_NEAR_ZERO)


def largest_difference(stable: Sequence[float], canary: Sequence[float]) -> float:
    """Return the largest |a - b|; what is no number on both sides differs by nothing.

    It is finite, because JSON has no infinity.
    """
    largest = 0.0
    for one, other in zip(stable, canary, strict=True):
        if one != other:
            difference = abs(one - other)
            largest = max(largest, difference)
    return min(largest, sys.float_info.max)
