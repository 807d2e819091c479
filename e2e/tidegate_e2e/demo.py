"""`make demo`: a cluster, the chart, a pool of real Triton workers, real answers.

`python -m tidegate_e2e.demo up|down`. Leaves everything running until `down`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tritonclient.utils import InferenceServerException

from tidegate_e2e import access, images
from tidegate_e2e.cluster import Cluster, choose, find
from tidegate_e2e.install import helm_values
from tidegate_e2e.localcluster.progress import say, step
from tidegate_e2e.localcluster.system import ClusterError

ROOT = Path(__file__).parents[2]
SYSTEM, NAMESPACE, POOL = "tidegate-system", "tidegate-demo", "files"
RELEASE = "tidegate"
_CLIENTS = 4
_REQUESTS = 200
_MAX_BYTES = 1024 * 1024
_PIPE_COLUMNS = 200
Answer = tuple[str, str, float]  # file, label, score
_HEADERS = {"x-tidegate-pool": f"{NAMESPACE}/{POOL}"}


@dataclass(slots=True)
class Log:
    """What the client itself saw: one entry a request."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    first_answer_s: float | None = None
    began_s: float = field(default_factory=time.monotonic)  # before the pool was applied
    pool_is_new: bool = True

    def note(self, ask: Callable[[], Answer]) -> None:
        """Run one request and write down what came of it."""
        try:
            self.answers.append(ask())
        except (InferenceServerException, OSError) as error:
            self.failures.append(str(error))

    def differing(self) -> list[str]:
        """Return the files that did not get the same label each time."""
        labels: dict[str, set[str]] = {}
        for file, label, _ in self.answers:
            labels.setdefault(file, set()).add(label)
        return [file for file, said in labels.items() if len(said) > 1]


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
        applied = _run(cluster, "kubectl", "apply", "-f", f"{ROOT}/examples")
        pool = f"inferencepools.tidegate.dev/{POOL}"
        waiting = ("wait", "--for=condition=Ready", pool, "-n", NAMESPACE, "--timeout=180s")
        _run(cluster, "kubectl", *waiting)
    log = Log(began_s=applied_s, pool_is_new=f"{POOL} created" in applied)
    with access.reach(cluster, SYSTEM, f"{RELEASE}-router") as router:
        with step(f"classify {_REQUESTS} files of this repository over HTTP, as many over gRPC"):
            _classify(router, log)
        workers = _workers(cluster)
        _show(cluster, workers, log)
        _write(log, len(workers), time.monotonic() - began_s)
        _next_steps(cluster, router)
    if log.failures:
        raise ClusterError(f"{len(log.failures)} requests failed, the first: {log.failures[0]}")
    if differing := log.differing():
        raise ClusterError(f"HTTP and gRPC do not agree on {', '.join(differing)}")


def down() -> None:
    """End everything that `up` started; a cluster of our own goes as a whole."""
    cluster = find("demo")
    if cluster.kind == "given":
        with step("uninstall"):
            _run(cluster, "kubectl", "delete", "namespace", NAMESPACE, "--ignore-not-found")
            _run(cluster, "helm", "uninstall", RELEASE, "-n", SYSTEM, "--ignore-not-found")
    cluster.down()


def _classify(router: access.Endpoints, log: Log) -> None:
    """Ask for the same files over HTTP and gRPC."""
    files = list(_files())
    picked = [files[number % len(files)] for number in range(_REQUESTS)]
    with triton_http.InferenceServerClient(router.http) as http:  # it is for one thread
        log.note(lambda: _over_http(http, picked[0]))
        if log.answers:
            log.first_answer_s = time.monotonic() - log.began_s
        one_by_one = map(lambda file: log.note(lambda: _over_http(http, file)), picked)
        _watch("HTTP", one_by_one, len(picked))
    with (
        triton_grpc.InferenceServerClient(router.grpc) as grpc,
        ThreadPoolExecutor(_CLIENTS) as pool,
    ):
        asked = pool.map(lambda file: log.note(lambda: _over_grpc(grpc, file)), picked)
        _watch("gRPC", asked, len(picked))


def _watch(name: str, asked: Iterator[None], count: int) -> None:
    """Run through the requests, saying how far they are."""
    began_s = time.monotonic()
    for number, _ in enumerate(asked, start=1):
        if number % 50 == 0:
            say(f"    {name}: {number} of {count}")
    say(f"    {name}: {count / (time.monotonic() - began_s):.0f} requests a second")


def _over_http(client: triton_http.InferenceServerClient, file: Path) -> Answer:
    tensor = triton_http.InferInput("CONTENT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(_content(file))
    # A copy of the headers each time: this client writes into what it is given.
    return _answer(file, client.infer("magika", [tensor], headers=dict(_HEADERS)))


def _over_grpc(client: triton_grpc.InferenceServerClient, file: Path) -> Answer:
    tensor = triton_grpc.InferInput("CONTENT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(_content(file))
    return _answer(file, client.infer("magika", [tensor], headers=dict(_HEADERS)))


def _content(file: Path) -> NDArray[np.object_]:
    return np.array([[file.read_bytes()[:_MAX_BYTES]]], dtype=np.object_)


def _answer(file: Path, result: triton_http.InferResult | triton_grpc.InferResult) -> Answer:
    label = bytes(result.as_numpy("LABEL")[0][0]).decode()
    return str(file.relative_to(ROOT)), label, float(result.as_numpy("SCORE")[0][0])


def _files() -> Iterator[Path]:
    """Yield this repository's files, a folder's neighbours apart, so that kinds mix."""
    skipped = {"__pycache__", "dist"}
    files = [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file()
        and not any(
            folder in skipped or folder.startswith(".")
            for folder in path.relative_to(ROOT).parts[:-1]
        )
    ]
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
    console = Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
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
        "firstAnswerSeconds": log.first_answer_s and round(log.first_answer_s, 1),
        "poolCreated": log.pool_is_new,
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
