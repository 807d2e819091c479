"""What a user types, with its output and exit code, on the real cluster."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from tidegate_e2e.access import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

POOL = "inferencepools.tidegate.dev/echo"
ROOT = Path(__file__).parents[1]
ECHO = "e2e/manifests/echo.yaml"
OPERATOR = "app.kubernetes.io/name=tidegate-operator"


def deployments(shell) -> list[dict]:
    return shell.get("deployments", "-l", "tidegate.dev/pool=echo")["items"]


def condition(shell, kind: str) -> dict:
    found = shell.get(POOL).get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == kind), {})


def test_get_shows_the_pool_in_columns_and_explain_knows_the_fields(standing):
    narrow = standing.kubectl("get", "tgpool").stdout
    assert re.search(
        r"NAME\s+READY\s+REASON\s+DESIRED\s+CURRENT\s+AVAILABLE\s+QUEUE\s+P95\s+AGE", narrow
    )
    assert re.search(r"echo\s+True\s+AsDesired\s+2\s+2\s+2\s", narrow)
    wide = standing.kubectl("get", "tgpool", "-o", "wide").stdout
    assert re.search(r"STABLE\s+COST/H", wide)
    assert "echo" in standing.kubectl("get", "tidegate").stdout
    assert "tgrt" in standing.kubectl("api-resources", "--api-group=tidegate.dev").stdout
    explained = standing.kubectl(
        "explain", "inferencepools.tidegate.dev.spec.template.models"
    ).stdout
    assert "dynamicBatching" in explained


def test_the_examples_apply_as_they_are_and_answer(release, router):
    demo = release.into("tidegate-demo")
    demo.kubectl("apply", "-f", "examples/")
    try:
        pool = "inferencepools.tidegate.dev/files"
        assert (
            "condition met"
            in demo.kubectl("wait", "--for=condition=Ready", pool, "--timeout=120s").stdout
        )
        for protocol, url in (("http", router.http), ("grpc", router.grpc)):
            said = demo.run(
                sys.executable, "-m", "tidegate_cli", "infer", "magika", "--url", url,
                "--protocol", protocol, "--input", "CONTENT=@e2e/conftest.py",
            ).stdout  # fmt: skip
            assert "python" in said
    finally:
        demo.kubectl("delete", "-f", "examples/", "--wait=false")


def test_applying_twice_changes_nothing_and_diff_is_empty(echo):
    before = echo.get(POOL)["metadata"]["generation"]
    assert "unchanged" in echo.kubectl("apply", "-f", ECHO).stdout
    assert echo.kubectl("diff", "-f", ECHO).stdout == ""
    assert echo.get(POOL)["metadata"]["generation"] == before


def test_scale_up_and_down_by_the_scale_subresource(echo):
    uids = {pod["metadata"]["uid"] for pod in echo.get("pods")["items"]}
    assert "scaled" in echo.kubectl("scale", POOL, "--replicas=3").stdout
    echo.kubectl("wait", "--for=jsonpath={.status.readyReplicas}=3", POOL, "--timeout=90s")
    assert uids < {pod["metadata"]["uid"] for pod in echo.get("pods")["items"]}
    echo.kubectl("scale", POOL, "--replicas=1")
    echo.kubectl("wait", "--for=jsonpath={.status.replicas}=1", POOL, "--timeout=90s")
    until(lambda: len(echo.get("pods")["items"]) == 1, what="one pod left")
    echo.kubectl("wait", "--for=condition=Ready", POOL, "--timeout=60s")
    scale = json.loads(echo.kubectl("get", POOL, "--subresource=scale", "-o", "json").stdout)
    assert scale["status"]["selector"]
    assert scale["status"]["replicas"] == 1


def test_scaled_to_zero_is_ready_and_comes_back(echo):
    echo.kubectl("scale", POOL, "--replicas=0")
    until(lambda: condition(echo, "Ready").get("reason") == "ScaledToZero", what="ScaledToZero")
    assert condition(echo, "Ready")["status"] == "True"
    echo.kubectl("scale", POOL, "--replicas=1")
    echo.kubectl("wait", "--for=jsonpath={.status.readyReplicas}=1", POOL, "--timeout=90s")


def test_a_child_edited_or_deleted_by_hand_is_repaired(echo):
    name = deployments(echo)[0]["metadata"]["name"]
    echo.kubectl("scale", f"deployment/{name}", "--replicas=5")
    until(lambda: deployments(echo)[0]["spec"]["replicas"] == 2, what="replicas are ours again")
    echo.kubectl("delete", "service", name)
    until(lambda: echo.kubectl("get", "service", name, check=False).returncode == 0)


def test_paused_holds_a_template_edit_and_resuming_lets_it_go(echo):
    echo.kubectl("patch", POOL, "--type=merge", "-p", '{"spec":{"paused":true}}')
    until(
        lambda: (
            echo.get(POOL)["status"]["observedGeneration"]
            == echo.get(POOL)["metadata"]["generation"]
        )
    )
    patch = '[{"op":"replace","path":"/spec/template/pod/env/0/value","value":"4"}]'
    echo.kubectl("patch", POOL, "--type=json", "-p", patch)
    generation = echo.get(POOL)["metadata"]["generation"]
    until(lambda: echo.get(POOL)["status"]["observedGeneration"] == generation, what="observed")
    assert len(deployments(echo)) == 1
    stable = echo.get(POOL)["status"]["stableRevision"]
    echo.kubectl("patch", POOL, "--type=merge", "-p", '{"spec":{"paused":false}}')
    until(lambda: echo.get(POOL)["status"]["stableRevision"] != stable, timeout_s=90)


@pytest.mark.parametrize("folder", ["gpu", "canary", "rollout"])
def test_the_api_server_accepts_the_examples_that_need_more_than_this_cluster(
    release, namespace, folder
):
    files = sorted((ROOT / "examples" / folder).glob("*.yaml"))
    documents = [item for file in files for item in yaml.safe_load_all(file.read_text())]
    objects = [item for item in documents if item["kind"] != "Namespace"]
    for item in objects:
        item["metadata"]["namespace"] = namespace.namespace
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    apply = ("apply", "--dry-run=server", "-f", "-")
    out = release.into(namespace.namespace).kubectl(*apply, stdin=listed).stdout
    assert out.count("(server dry run)") == len(objects) > 0


def test_pool_and_namespace_delete_with_the_operator_down(release, namespace):
    namespace.kubectl("apply", "-f", ECHO)
    until(lambda: deployments(namespace), what="a deployment")
    operator = release.get("deployments", "-l", OPERATOR)["items"][0]
    name = operator["metadata"]["name"]
    release.kubectl("scale", f"deployment/{name}", "--replicas=0")
    try:
        until(lambda: not release.get("pods", "-l", OPERATOR)["items"], what="no operator is left")
        namespace.kubectl("delete", POOL, "--timeout=30s")
        until(lambda: not deployments(namespace), what="children are collected")
        namespace.kubectl("apply", "-f", ECHO)
        # The namespace controller looks again only after half of the longest grace period of a
        # pod that is still ending, here 60 s, and then after half of the next one's.
        namespace.kubectl("delete", "namespace", namespace.namespace, "--timeout=150s")
        namespace.kubectl("create", "namespace", namespace.namespace)
    finally:
        replicas = operator["spec"]["replicas"]
        release.kubectl("scale", f"deployment/{name}", f"--replicas={replicas}")
        release.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
