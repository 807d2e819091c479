"""When a model must prove itself by a real inference, and what that says. Pure.

An inference runs after a load and when none succeeded for 10 s; otherwise Triton's success
counter that moved in the last 10 s is the proof. A timeout while work is pending never makes a
worker unready: it would cascade under overload.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tidegate_api.template import Warmup

PROOF_S = 10.0
_RETRY_S = 1.0
_RETRY_TIMEOUT_S = 10.0  # what timed out may still wait in Triton: never pile up more


class Outcome(StrEnum):
    """What one readiness inference said."""

    SUCCESS = "Success"
    REFUSED = "Refused"  # a client error: the model does not like made-up input
    TIMEOUT = "Timeout"
    FAILURE = "Failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What is known of one model; times are of a monotonic clock."""

    ready: bool = False
    strength: str = "None"  # Strong, Weak or None: state.ModelState.probe
    proven_s: float | None = None
    next_try_s: float = -math.inf
    successes: int = 0
    message: str = ""


def note_counter(proof: Proof, successes: int, now_s: float) -> Proof:
    """Take in Triton's success counter: movement is a proof by real traffic."""
    if successes > proof.successes:
        return replace(
            proof, ready=True, strength="Strong", proven_s=now_s, successes=successes, message=""
        )
    return replace(proof, successes=successes)


def due(proof: Proof, now_s: float) -> bool:
    """Whether an inference must run now."""
    stale = proof.proven_s is None or now_s - proof.proven_s >= PROOF_S
    return (stale or not proof.ready) and now_s >= proof.next_try_s


def conclude(
    proof: Proof, outcome: Outcome, *, now_s: float, pending: int, message: str = ""
) -> Proof:
    """Return what is known after an inference.

    A refusal proves that the model answers, weakly: strength Weak until real traffic succeeds.
    `pending` is what waits in Triton at the time of a timeout, the inference itself included:
    where anything waits, the instances are busy with other work.
    """
    tried = replace(proof, next_try_s=now_s + _RETRY_S, message=message)
    match outcome:
        case Outcome.SUCCESS:
            return replace(tried, ready=True, strength="Strong", proven_s=now_s, message="")
        case Outcome.REFUSED:
            return replace(tried, ready=True, strength="Weak", proven_s=now_s)
        case Outcome.FAILURE:
            return replace(tried, ready=False)
        case Outcome.TIMEOUT:
            kept = proof.ready and pending > 0
            return replace(tried, ready=kept, next_try_s=now_s + _RETRY_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of the inference: shape with batch dimension, and how to fill it."""

    name: str
    data_type: str
    shape: tuple[int, ...]
    fill: str = "Zero"
    file: str = ""


def readiness_inputs(
    inputs: Sequence[Mapping[str, object]], max_batch_size: int, warmups: Sequence[Warmup] | None
) -> tuple[Tensor, ...]:
    """Return the inference's inputs: the first warmup's, else zeros by the loaded config.

    `inputs` is the `input` list of Triton's config; -1 becomes 1; a batch dimension is put in
    front where the model batches.
    """
    batch = (1,) if max_batch_size > 0 else ()
    if warmups:
        return tuple(
            Tensor(name, item.data_type, (*batch, *item.dims), item.fill or "Zero", item.file or "")
            for name, item in warmups[0].inputs.items()
        )
    return tuple(
        Tensor(str(item["name"]), _protocol_type(str(item["data_type"])), (*batch, *_dims(item)))
        for item in inputs
        if not item.get("optional")
    )


def _dims(item: Mapping[str, object]) -> list[int]:
    """Triton's JSON writes int64 as numbers or as strings."""
    listed = item.get("dims")
    return [_known(int(dim)) for dim in listed] if isinstance(listed, list) else []


def _known(dim: int) -> int:
    return 1 if dim < 0 else dim


def _protocol_type(triton: str) -> str:
    name = triton.removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
