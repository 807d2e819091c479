"""Which tensors a request carries, from what a user typed and what the model declares.

A value is a literal or the content of a file. Literals: text for BYTES inputs, JSON for numbers
(`3`, `[1, 2]`, `[[1, 2], [3, 4]]`). Content: one element of a BYTES input; else raw little-endian
numbers. A model's unknown dimensions (-1) take what the values need: all but the last of them
become 1. A name given again adds a row.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidegate_cli.errors import InputError

Scalar = bool | int | float | bytes
_SIZES_BYTES: Mapping[str, int] = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2,
    "INT32": 4, "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Declared:
    """An input as the model's metadata names it; -1 in `shape` is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """One `--input`: `text` as typed, or `content` of the file that it named."""

    name: str
    text: str = ""
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input ready to be sent: flat `values` in row-major order, or their `raw` bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: tuple[Scalar, ...] = ()
    raw: bytes | None = None


def split(argument: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, sign, value = argument.partition("=")
    if not sign or not name:
        raise InputError(f"--input {argument}: expected NAME=VALUE or NAME=@FILE")
    return name, value


def plan(declared: Sequence[Declared], given: Sequence[Given]) -> list[Tensor]:
    """Return one tensor for each declared input; InputError names what is wrong."""
    known = {one.name for one in declared}
    unknown = sorted({one.name for one in given} - known)
    if unknown:
        raise InputError(f"the model has no input {unknown[0]}; it has {_names(declared)}")
    by_name = {one.name: [item for item in given if item.name == one.name] for one in declared}
    missing = [one for one in declared if not by_name[one.name]]
    if missing:
        raise InputError(f"no value for input {_names(missing)}: add --input {missing[0].name}=...")
    return [_tensor(one, by_name[one.name]) for one in declared]


def _names(inputs: Iterable[Declared]) -> str:
    return ", ".join(f"{one.name} ({one.datatype} {list(one.shape)})" for one in inputs)


def _tensor(declared: Declared, given: Sequence[Given]) -> Tensor:
    if declared.datatype == "BYTES":
        return _texts(declared, given)
    if declared.datatype not in _SIZES_BYTES:
        raise InputError(f"input {declared.name}: {declared.datatype} is not supported here")
    if any(one.content is not None for one in given):
        return _raw(declared, given)
    return _numbers(declared, given)


def _texts(declared: Declared, given: Sequence[Given]) -> Tensor:
    values = tuple(one.text.encode() if one.content is None else one.content for one in given)
    return Tensor(declared.name, "BYTES", fit(declared, len(values)), values)


def _raw(declared: Declared, given: Sequence[Given]) -> Tensor:
    if any(one.content is None for one in given):
        raise InputError(f"input {declared.name}: give either files or literals, not both")
    data = b"".join(one.content for one in given if one.content is not None)
    size_bytes = _SIZES_BYTES[declared.datatype]
    if len(data) % size_bytes:
        raise InputError(
            f"input {declared.name}: {len(data)} bytes are no whole number of "
            f"{declared.datatype} values ({size_bytes} bytes each)"
        )
    shape = fit(declared, len(data) // size_bytes)
    return Tensor(declared.name, declared.datatype, shape, raw=data)


def _numbers(declared: Declared, given: Sequence[Given]) -> Tensor:
    rows = [_parsed(declared, one.text) for one in given]
    shapes = {shape for shape, _ in rows}
    if len(shapes) > 1:
        raise InputError(f"input {declared.name}: its rows have different shapes")
    values = tuple(value for _, row in rows for value in row)
    own = next(iter(shapes))
    if len(rows) == 1 and len(own) == len(declared.shape):
        return Tensor(declared.name, declared.datatype, _checked(declared, own), values)
    return Tensor(declared.name, declared.datatype, fit(declared, len(values)), values)


def _parsed(declared: Declared, text: str) -> tuple[tuple[int, ...], list[Scalar]]:
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError:
        raise InputError(
            f"input {declared.name}: expected {declared.datatype} as JSON, like 3 or [1, 2], "
            f"or @FILE with raw values, not '{text[:40]}'"
        ) from None
    return _flat(declared, value)


def _flat(declared: Declared, value: object) -> tuple[tuple[int, ...], list[Scalar]]:
    if isinstance(value, (bool, int, float)):
        return (), [value]
    if not isinstance(value, list):
        raise InputError(f"input {declared.name}: expected numbers, not {value!r:.40}")
    parts = [_flat(declared, item) for item in value]
    if len({shape for shape, _ in parts}) > 1:
        raise InputError(f"input {declared.name}: its lists have different lengths")
    inner = parts[0][0] if parts else ()
    return (len(parts), *inner), [scalar for _, scalars in parts for scalar in scalars]


def _checked(declared: Declared, own: tuple[int, ...]) -> tuple[int, ...]:
    fits = all(want in {-1, have} for want, have in zip(declared.shape, own, strict=True))
    if not fits:
        raise InputError(
            f"input {declared.name}: shape {list(own)} given, {list(declared.shape)} expected"
        )
    return own


def fit(declared: Declared, count: int) -> tuple[int, ...]:
    """Return the declared shape with room for `count` values in its last unknown dimension."""
    unknown = [at for at, size in enumerate(declared.shape) if size < 0]
    fixed = math.prod(size for size in declared.shape if size >= 0)
    if unknown and fixed and count % fixed == 0:
        filled = [1 if size < 0 else size for size in declared.shape]
        filled[unknown[-1]] = count // fixed
        return tuple(filled)
    if not unknown and count == fixed:
        return declared.shape
    raise InputError(
        f"input {declared.name}: {count} values do not fill shape {list(declared.shape)}"
    )
