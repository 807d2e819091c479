"""What tables and JSON show of answers and workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SHOWN_VALUES = 8
_SHOWN_CHARACTERS = 60
Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Output:
    """An output tensor: `values` flat, in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: tuple[object, ...]


OUTPUT_COLUMNS = ("output", "type", "shape", "values")


def output_row(output: Output) -> tuple[str, str, str, str]:
    """Return name, type, shape and the first values, as a table shows them."""
    shown = ", ".join(_short(value) for value in output.values[:_SHOWN_VALUES])
    more = len(output.values) - _SHOWN_VALUES
    values = f"{shown} ... ({more} more)" if more > 0 else shown
    return output.name, output.datatype, "x".join(map(str, output.shape)), values


def output_json(output: Output) -> Json:
    """Return a tensor as the Open Inference Protocol writes it in JSON."""
    data = [_plain(value) for value in output.values]
    shape = list(output.shape)
    return {"name": output.name, "datatype": output.datatype, "shape": shape, "data": data}


def _plain(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(_plain(value))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


WORKER_COLUMNS = (
    "pool", "worker", "class", "revision", "state", "score", "model", "in flight", "weight",
)  # fmt: skip


def worker_rows(workers: Sequence[Json]) -> list[tuple[str, ...]]:
    """Return one row per worker and model, from the router's admin API /workers."""
    return [row for worker in workers for row in _rows(worker)]


def _rows(worker: Json) -> list[tuple[str, ...]]:
    score = worker.get("score")
    head = (
        str(worker.get("pool", "")),
        str(worker.get("worker", "")),
        str(worker.get("accelerator", "")),
        str(worker.get("revision", "")),
        state(worker),
        f"{score:.2f}" if isinstance(score, int | float) else "-",
    )
    models = worker.get("models")
    listed = [one for one in models if isinstance(one, dict)] if isinstance(models, list) else []
    return [(*head, *_model(one)) for one in listed] or [(*head, "-", "-", "-")]


def _model(model: Json) -> tuple[str, str, str]:
    busy = f"{model.get('inFlight', 0)}/{model.get('limit', 0)}"
    return str(model.get("model", "")), busy, str(model.get("weight", ""))


def state(worker: Json) -> str:
    """Return one word on a worker: what keeps requests from it goes first."""
    for name in ("draining", "down"):
        if worker.get(name):
            return name
    if not worker.get("ready"):
        return "not ready"
    return "serving" if worker.get("eligible") else "no model"
