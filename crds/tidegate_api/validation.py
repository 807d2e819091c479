"""A document -> the model of its kind, or every problem with its field.

The API server has checked an object already; this serves objects that no server saw (`tidegate
lint`, a rollout's merged template) and an operator that is newer than the CRD. Errors:

    ValueError
        InvalidObjectError          the object's name and one problem per field
            InvalidPoolError
            InvalidRolloutError
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tidegate_api.meta import ApiModel
from tidegate_api.names import GROUP, PLURALS, Kind
from tidegate_api.pool import InferencePool
from tidegate_api.poolchecks import POOL_CHECKS
from tidegate_api.rollout import ModelRollout
from tidegate_api.rolloutchecks import ROLLOUT_CHECKS
from tidegate_api.rules import Rule

CHECKS = POOL_CHECKS
_Object = TypeVar("_Object", bound=ApiModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one field; `field` is a path from the object's root."""

    field: str
    expectation: str

    def __str__(self) -> str:
        return f"{self.field}: {self.expectation}"


class InvalidObjectError(ValueError):
    """An object that is not what its kind says."""

    def __init__(self, name: str, problems: tuple[Problem, ...]) -> None:
        self.name = name
        self.problems = problems
        super().__init__(f"{name}: {'; '.join(map(str, problems))}")


class InvalidPoolError(InvalidObjectError):
    """An object that is no valid InferencePool."""


class InvalidRolloutError(InvalidObjectError):
    """An object that is no valid ModelRollout."""


def parse_pool(document: Mapping[str, object]) -> InferencePool:
    """Return the pool, or raise InvalidPoolError with all problems. No value is ever quoted:
    an environment variable of the template may be a credential.
    """
    pool, problems = _parsed(InferencePool, POOL_CHECKS, document)
    if pool is None:
        raise InvalidPoolError(_name(Kind.INFERENCE_POOL, document), problems)
    return pool


def parse_rollout(document: Mapping[str, object]) -> ModelRollout:
    """Return the rollout, or raise InvalidRolloutError with all problems. Says nothing of the
    pool it names: see problems_of_merged.
    """
    rollout, problems = _parsed(ModelRollout, ROLLOUT_CHECKS, document)
    if rollout is None:
        raise InvalidRolloutError(_name(Kind.MODEL_ROLLOUT, document), problems)
    return rollout


def problems_of_merged(
    pool: Mapping[str, object], merged_template: Mapping[str, object]
) -> tuple[Problem, ...]:
    """Return what is wrong with a pool once a merged template takes its own one's place.

    `pool` is the pool's document. Paths are the pool's: the classes' settings count too.
    """
    spec = pool.get("spec")
    fields = spec if isinstance(spec, Mapping) else {}
    document = {**pool, "spec": {**fields, "template": merged_template}}
    return _parsed(InferencePool, POOL_CHECKS, document)[1]


def _parsed(
    model: type[_Object],
    checks: Sequence[tuple[Rule, Callable[[_Object], Iterator[str]]]],
    document: Mapping[str, object],
) -> tuple[_Object | None, tuple[Problem, ...]]:
    """Return (object, ()), or (None, all problems)."""
    try:
        found = model.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        return None, tuple(map(_problem, details))
    broken = tuple(Problem(at, rule.message) for rule, check in checks for at in check(found))
    return (None, broken) if broken else (found, ())


def _problem(details: ErrorDetails) -> Problem:
    return Problem(_path(details["loc"]), details["msg"])


def _path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _name(kind: Kind, document: Mapping[str, object]) -> str:
    metadata = document.get("metadata")
    fields = metadata if isinstance(metadata, Mapping) else {}
    name = "/".join(str(fields[key]) for key in ("namespace", "name") if fields.get(key))
    return f"{PLURALS[kind]}.{GROUP} {name or 'without a name'}"
