"""How fast a pool answers, and how fast an edit reaches its Deployment (tier K: real cluster).

Run by `make bench` on the cluster of `make demo`. Writes .bench/pool.json and ends with one
key=value line.
"""

import json
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import tritonclient.http as http_client
import yaml

from tidegate_e2e import access
from tidegate_e2e.cluster import Cluster, choose

ROOT = Path(__file__).parents[2]
POOL = "inferencepools.tidegate.dev/echo"
STARTS, EDITS = 5, 100


def kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl and return its output; raises with its error text."""
    done = subprocess.run(
        ["kubectl", *arguments], input=stdin, text=True, capture_output=True, check=False,
        env=cluster.environment(), cwd=ROOT,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def infer(client: http_client.InferenceServerClient, namespace: str) -> bool:
    """Return whether the pool answers now."""
    tensor = http_client.InferInput("INPUT", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.array([[7.0]], dtype=np.float32))
    try:
        client.infer("echo", [tensor], headers={"x-tidegate-pool": f"{namespace}/echo"})
    except http_client.InferenceServerException:
        return False
    return True


def first_answer_s(cluster: Cluster, client: http_client.InferenceServerClient) -> float:
    """Return seconds from the creation of a pool to its first answer."""
    namespace = f"bench-{uuid.uuid4().hex[:6]}"
    kubectl(cluster, "create", "namespace", namespace)
    try:
        began = time.monotonic()
        kubectl(cluster, "-n", namespace, "apply", "-f", "e2e/manifests/echo.yaml")
        access.until(lambda: infer(client, namespace), timeout_s=120, what="a first answer")
        return time.monotonic() - began
    finally:
        kubectl(cluster, "delete", "namespace", namespace, "--wait=true")


def edit_to_patch_s(cluster: Cluster) -> list[float]:
    """Return, per template edit, seconds until a Deployment carries the new revision.

    Its worker fits no node, so an edit starts no container; creation times come from a watch. The
    next edit comes once the last one's leftovers are gone: what is measured is one edit.
    """
    namespace = f"bench-{uuid.uuid4().hex[:6]}"
    kubectl(cluster, "create", "namespace", namespace)
    documents = list(yaml.safe_load_all((ROOT / "e2e/manifests/echo.yaml").read_text()))
    documents[1]["spec"]["replicas"] = 1
    documents[1]["spec"]["accelerators"][0]["nodeSelector"] = {"bench": "nowhere"}
    kubectl(cluster, "-n", namespace, "apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
    watch = subprocess.Popen(
        ["kubectl", "-n", namespace, "get", "deployments", "-w", "--no-headers", "-o", "name"],
        stdout=subprocess.PIPE, text=True, env=cluster.environment(),
    )  # fmt: skip
    assert watch.stdout is not None
    try:
        seen = {watch.stdout.readline()}
        return [_one_edit(cluster, namespace, number, seen, watch) for number in range(EDITS)]
    finally:
        watch.terminate()
        watch.wait()
        kubectl(cluster, "delete", "namespace", namespace, "--wait=true")


def _one_edit(cluster, namespace, number, seen, watch) -> float:
    path = "/spec/template/pod/env/0/value"
    patch = json.dumps([{"op": "replace", "path": path, "value": str(number + 10)}])
    kubectl(cluster, "-n", namespace, "patch", POOL, "--type=json", "-p", patch)
    began = time.monotonic()
    while (line := watch.stdout.readline()) in seen:
        pass
    took_s = time.monotonic() - began
    seen.add(line)
    access.until(lambda: _is_alone(cluster, namespace), what="the old Deployment is gone")
    return took_s


def _is_alone(cluster: Cluster, namespace: str) -> bool:
    listed = kubectl(cluster, "-n", namespace, "get", "deployments", "-o", "name")
    return len(listed.split()) == 1


def main() -> int:
    """Measure, write .bench/pool.json, print the summary line."""
    cluster = choose("demo")
    with (
        access.reach(cluster, "tidegate-system", "tidegate-router") as router,
        http_client.InferenceServerClient(router.http) as client,
    ):
        answers = []
        for number in range(STARTS):
            answers.append(first_answer_s(cluster, client))
            print(f"start {number + 1}/{STARTS}: {answers[-1]:.1f} s", flush=True)
    edits = edit_to_patch_s(cluster)
    result = {
        "tier": "K",
        "firstAnswerSecondsMedian": round(statistics.median(answers), 2),
        "firstAnswerSecondsMax": round(max(answers), 2),
        "starts": STARTS,
        "editToDeploymentSecondsP50": round(statistics.median(edits), 3),
        "editToDeploymentSecondsP99": round(statistics.quantiles(edits, n=100)[98], 3),
        "edits": EDITS,
    }
    target = ROOT / ".bench" / "pool.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(" ".join(f"{key}={value}" for key, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
