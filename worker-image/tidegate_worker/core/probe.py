"""When a model must prove itself by a real inference, and what that says. Pure.

An inference runs after a load and when none succeeded for 10 s; otherwise Triton's success
counter that moved in the last 10 s is the proof. A timeout while work is pending never makes a
worker unready: it would cascade under overload.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tidegate_api.template import Warmup

PROOF_S = 10.0
_RETRY_S = 1.0


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
    tried_s: float | None = None
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
    if proof.tried_s is not None and now_s - proof.tried_s < _RETRY_S:
        return False
    return proof.proven_s is None or now_s - proof.proven_s >= PROOF_S


def conclude(
    proof: Proof, outcome: Outcome, *, now_s: float, pending: int, message: str = ""
) -> Proof:
    """Return what is known after an inference.

    A refusal proves that the model answers, weakly: strength Weak until real traffic succeeds.
    """
    tried = replace(proof, tried_s=now_s, message=message)
    if outcome is Outcome.SUCCESS:
        return replace(tried, ready=True, strength="Strong", proven_s=now_s, message="")
    if outcome is Outcome.REFUSED:
        return replace(tried, ready=True, strength="Weak", proven_s=now_s)
    if outcome is Outcome.TIMEOUT and pending > 0 and proof.ready:
        return tried
    return replace(tried, ready=False)


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
    reshape = item.get("dims")
    listed = reshape if isinstance(reshape, list) else []
    return [max(1, int(dim)) if int(dim) != 0 else 0 for dim in listed]


def _protocol_type(triton: str) -> str:
    name = triton.removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
