"""Real Triton behind the router and without it, over HTTP and gRPC, every output compared."""

import json
import struct
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import service_pb2

from tidegate_e2e.routerbench import peers, tritonserver
from tidegate_e2e.routerbench.figures import Book, Json, ratios, spread
from tidegate_e2e.routerbench.load import loadtest, number
from tidegate_e2e.routerbench.machine import Bench, cpu_s
from tidegate_e2e.routerbench.plan import Plan
from tidegate_e2e.routerbench.table import Worker

_BODIES = 8  # different ones: an answer to another's request would be seen
_LOADS = {"sleeper": 8, "tiny": 4}  # clients at once: twice the instances of the model, and more
_LIMIT = 64


@dataclass(frozen=True, slots=True)
class _Case:
    model: str
    protocol: str
    direct: int  # port
    routed: int


def rows(bench: Bench, plan: Plan, book: Book) -> None:
    """Measure both models over both protocols."""
    triton = tritonserver.start(bench)
    for model in _LOADS:
        with bench.part() as part:
            router = peers.ours(
                part, [Worker(http=triton.http, grpc=triton.grpc, limit=_LIMIT)], model=model
            )
            _right_answer(router.port, model)
            for protocol, direct, routed in (
                ("http", triton.http, router.port),
                ("grpc", triton.grpc, router.grpc_port),
            ):
                pid = router.program.pid if router.program else 0
                _measured(bench, plan, book, _Case(model, protocol, direct, routed), pid)


def _measured(bench: Bench, plan: Plan, book: Book, case: _Case, pid: int) -> None:
    rate: dict[str, list[float]] = {"direct": [], "routed": []}
    wrong, cost_us = 0.0, []
    for _ in range(plan.rounds):
        digests = []
        for name, port in (("direct", case.direct), ("routed", case.routed)):
            before_s = cpu_s(pid)
            found = _load(bench, plan, case, port)
            rate[name].append(number(found, "throughput"))
            wrong += number(found, "lost")
            digests.append(found["answers_sha256"])
            if name == "routed":
                cost_us.append((cpu_s(pid) - before_s) / number(found, "requests") * 1e6)
        wrong += digests[0] != digests[1]
        print(
            f"bench: triton {case.model} {case.protocol}: direct {rate['direct'][-1]:,.0f}/s, "
            f"routed {rate['routed'][-1]:,.0f}/s, wrong or lost {wrong:.0f}",
            flush=True,
        )
    # On a core of its own the router serves at most this many, whatever the model costs.
    ceiling = [
        min(direct, 1e6 / cost) for direct, cost in zip(rate["direct"], cost_us, strict=True)
    ]
    row: dict[str, Json] = {
        "ceiling_rate": spread(ceiling),
        "direct_rate": spread(rate["direct"]), "routed_rate": spread(rate["routed"]),
        "router_cpu_us": spread(cost_us), "wrong_or_lost": wrong, "clients": _LOADS[case.model],
    }  # fmt: skip
    book.row(f"triton_{case.model}_{case.protocol}", row)
    name = "triton" if case.model == "sleeper" else "triton_tiny"
    book.ratio(f"{name}_{case.protocol}_ratio_to_direct", ratios(rate["routed"], rate["direct"]))
    book.ratio(f"{name}_{case.protocol}_ceiling", ratios(ceiling, rate["direct"]))
    book.figure(f"{name}_{case.protocol}_wrong_or_lost", wrong)


def _load(bench: Bench, plan: Plan, case: _Case, port: int) -> dict[str, object]:
    options = [
        case.model, "--url", f"{case.protocol}://127.0.0.1:{port}", "--compare",
        "-c", str(_LOADS[case.model]), "--duration", str(plan.seconds), "--warmup", "1",
    ]  # fmt: skip
    for file in _bodies(bench.folder, case):
        options += ["--body", str(file)]
    return loadtest(bench.folder, "triton", options).result()


def _bodies(folder: Path, case: _Case) -> list[Path]:
    files = []
    for at in range(_BODIES):
        file = folder / f"{case.model}-{case.protocol}-{at}"
        values = [float(at), at + 0.5, -float(at), 1000.0 + at]
        file.write_bytes(_json(values) if case.protocol == "http" else _message(case.model, values))
        files.append(file)
    return files


def _json(values: list[float]) -> bytes:
    tensor = {"name": "IN", "datatype": "FP32", "shape": [1, 4], "data": values}
    return json.dumps({"inputs": [tensor]}).encode()


def _message(model: str, values: list[float]) -> bytes:
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="IN", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(struct.pack("<4f", *values))
    return bytes(request.SerializeToString())


def _right_answer(port: int, model: str) -> None:
    """See once with our own eyes that the model doubles; after that answers are compared."""
    url = f"http://127.0.0.1:{port}/v2/models/{model}/infer"
    request = urllib.request.Request(url, _json([1.0, 2.0, 3.0, 4.5]))  # our router
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # the same
        data = json.loads(answer.read())["outputs"][0]["data"]
    if data != [2.0, 4.0, 6.0, 9.0]:
        raise RuntimeError(f"{model} answers {data}")
