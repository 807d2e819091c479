"""`make demo`: a cluster, the chart, a pool of real Triton workers, real answers.

`python -m tidegate_e2e.demo up|down`. Leaves everything running until `down`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tritonclient.utils import InferenceServerException

from tidegate_e2e import access, images
from tidegate_e2e.cluster import Cluster, choose
from tidegate_e2e.install import helm_values
from tidegate_e2e.localcluster.progress import say, step
from tidegate_e2e.localcluster.system import ClusterError

ROOT = Path(__file__).parents[2]
SYSTEM, NAMESPACE, POOL = "tidegate-system", "tidegate-demo", "files"
RELEASE = "tidegate"
_CLIENTS = 4
_REQUESTS = 200
Answer = tuple[str, str, float]  # file, label, score
_HEADERS = {"x-tidegate-pool": f"{NAMESPACE}/{POOL}"}


@dataclass(slots=True)
class Log:
    """What the client itself saw: one entry a request."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    first_answer_s: float | None = None
    began_s: float = field(default_factory=time.monotonic)

    def note(self, ask: Callable[[], Answer]) -> None:
        """Run one request and write down what came of it."""
        try:
            self.answers.append(ask())
        except (InferenceServerException, OSError) as error:
            self.failures.append(str(error))


def up() -> None:
    """Bring everything up, ask for answers, say what to try next."""
    began_s = time.monotonic()
    cluster = choose("demo")
    images.build()
    cluster.load_images()
    with step("install the chart (helm upgrade --install tidegate .)"):
        _run(
            cluster, "helm", "upgrade", "--install", RELEASE, str(ROOT), "-n", SYSTEM,
            "--create-namespace", "--wait", "--timeout", "180s", *helm_values(),
        )  # fmt: skip
    applied_s = time.monotonic()
    with step("apply examples/ and wait for the pool"):
        _run(cluster, "kubectl", "apply", "-f", f"{ROOT}/examples")
        pool = f"inferencepools.tidegate.dev/{POOL}"
        waiting = ("wait", "--for=condition=Ready", pool, "-n", NAMESPACE, "--timeout=180s")
        _run(cluster, "kubectl", *waiting)
    log = Log(began_s=applied_s)
    with access.reach(cluster, SYSTEM, f"{RELEASE}-router") as router:
        with step(f"classify {_REQUESTS} files of this repository over HTTP, as many over gRPC"):
            _classify(router, log)
        workers = _workers(cluster)
        _show(cluster, workers, log)
        _write(log, len(workers), time.monotonic() - began_s)
        _next_steps(cluster, router)
    if log.failures:
        raise ClusterError(f"{len(log.failures)} requests failed, the first: {log.failures[0]}")


def down() -> None:
    """End everything that `up` started."""
    cluster = choose("demo")
    with step("uninstall"):
        _run(cluster, "kubectl", "delete", "-f", f"{ROOT}/examples", "--ignore-not-found")
        _run(cluster, "helm", "uninstall", RELEASE, "-n", SYSTEM, "--ignore-not-found")
    cluster.down()


def _classify(router: access.Endpoints, log: Log) -> None:
    files = list(_files())
    picked = [files[number % len(files)] for number in range(_REQUESTS)]
    with triton_http.InferenceServerClient(router.http) as http:
        log.note(lambda: _over_http(http, picked[0]))
        log.first_answer_s = time.monotonic() - log.began_s
        _ask_all("HTTP", picked, log, lambda file: _over_http(http, file), clients=1)
    with triton_grpc.InferenceServerClient(router.grpc) as grpc:
        _ask_all("gRPC", picked, log, lambda file: _over_grpc(grpc, file), clients=_CLIENTS)


def _ask_all(
    name: str, files: Sequence[Path], log: Log, ask: Callable[[Path], Answer], clients: int
) -> None:
    """Ask for every file; tritonclient's HTTP client is for one thread, its gRPC client not."""
    began_s = time.monotonic()
    if clients == 1:
        for number, file in enumerate(files, start=1):
            log.note(partial(ask, file))
            if number % 50 == 0:
                say(f"    {name}: {number} of {len(files)}")
    else:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda file: log.note(partial(ask, file)), files))
    say(f"    {name}: {len(files) / (time.monotonic() - began_s):.0f} requests a second")


def _over_http(client: triton_http.InferenceServerClient, file: Path) -> Answer:
    tensor = triton_http.InferInput("CONTENT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(_content(file))
    return _answer(file, client.infer("magika", [tensor], headers=_HEADERS))


def _over_grpc(client: triton_grpc.InferenceServerClient, file: Path) -> Answer:
    tensor = triton_grpc.InferInput("CONTENT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(_content(file))
    return _answer(file, client.infer("magika", [tensor], headers=_HEADERS))


def _content(file: Path) -> NDArray[np.object_]:
    return np.array([[file.read_bytes()[:65536]]], dtype=np.object_)


def _answer(file: Path, result: triton_http.InferResult | triton_grpc.InferResult) -> Answer:
    label = bytes(result.as_numpy("LABEL")[0][0]).decode()
    return str(file.relative_to(ROOT)), label, float(result.as_numpy("SCORE")[0][0])


def _files() -> Iterator[Path]:
    """Yield this repository's files, a folder's neighbours apart, so that kinds mix."""
    skipped = {".git", ".venv", "__pycache__", ".bench"}
    files = [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file() and not skipped.intersection(part for part in path.parts)
        and not any(part.startswith(".") and part.endswith("_cache") for part in path.parts)
    ]  # fmt: skip
    step_size = max(1, len(files) // 37)
    for offset in range(step_size):
        yield from files[offset::step_size]


def _workers(cluster: Cluster) -> list[dict[str, object]]:
    table = json.loads(
        _run(cluster, "kubectl", "get", "routetables.tidegate.dev", POOL, "-n", NAMESPACE,
             "-o", "json")
    )  # fmt: skip
    found: list[dict[str, object]] = table["spec"]["workers"]
    return found


def _show(cluster: Cluster, workers: list[dict[str, object]], log: Log) -> None:
    console = Console()
    table = Table("worker", "class", "revision", "score", "pressure", "heat", title="Workers")
    for worker in workers:
        keys = ("name", "accelerator", "revision", "score", "pressure", "thermal")
        table.add_row(*(str(worker.get(key, "")) for key in keys))
    console.print(table)
    answers = Table("file", "is", "score", title="Answers (one of each kind)")
    one_each = {label: (file, score) for file, label, score in log.answers}
    for label, (file, score) in sorted(one_each.items()):
        answers.add_row(file, label, f"{score:.2f}")
    console.print(answers)
    kinds = Counter(label for _, label, _ in log.answers).most_common(5)
    console.print("most common: " + ", ".join(f"{label} {count}" for label, count in kinds))
    console.print(_run(cluster, "kubectl", "get", "tgpool", "-n", NAMESPACE, "-o", "wide"))


def _write(log: Log, workers: int, seconds: float) -> None:
    """Write .bench/demo.json from the client's own log."""
    result = {
        "tier": "K",
        "requests": len(log.answers) + len(log.failures),
        "failed": len(log.failures),
        "seconds": round(seconds, 1),
        "firstAnswerSeconds": round(log.first_answer_s or 0, 1),
        "workers": workers,
    }
    target = ROOT / ".bench" / "demo.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    say("demo: " + " ".join(f"{key}={value}" for key, value in result.items()))


def _next_steps(cluster: Cluster, router: access.Endpoints) -> None:
    path = cluster.environment()["PATH"].split(":")[0]
    say(f"""
It runs until `make demo-down`. Try next:

  export KUBECONFIG={cluster.kubeconfig} PATH={path}:$PATH
  kubectl get tgpool -n {NAMESPACE} -o wide
  kubectl describe tgpool {POOL} -n {NAMESPACE}
  kubectl scale tgpool {POOL} -n {NAMESPACE} --replicas=3
  kubectl patch tgpool {POOL} -n {NAMESPACE} --type=json -p \\
    '[{{"op":"replace","path":"/spec/template/models/0/maxBatchSize","value":8}}]'
  .venv/bin/tidegate infer magika --url {router.http} --input CONTENT=@README.md
  .venv/bin/tidegate infer magika --url {router.grpc} --protocol grpc --input CONTENT=@Makefile
""")


def _run(cluster: Cluster, *command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=cluster.environment()
    )
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def main() -> int:
    """Run one verb; 1 with the reason when it fails."""
    parser = argparse.ArgumentParser(prog="python -m tidegate_e2e.demo")
    parser.add_argument("verb", choices=("up", "down"))
    verb = parser.parse_args().verb
    try:
        up() if verb == "up" else down()
    except (ClusterError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
