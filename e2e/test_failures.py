"""Workers that cannot start, hands that kill: the pool says why, the old revision serves on."""

import json
import time

import numpy as np
import pytest
import tritonclient.http as http_client

from tidegate_e2e.access import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

POOL = "inferencepools.tidegate.dev/echo"
INFER = {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [1, 1], "data": [7.0]}]}


def condition(shell, kind: str) -> dict:
    found = shell.get(POOL).get("status", {}).get("conditions", [])
    return next((c for c in found if c["type"] == kind), {})


def edit(shell, *operations: dict) -> None:
    shell.kubectl("patch", POOL, "--type=json", "-p", json.dumps(operations))


def answers(router, shell) -> bool:
    with http_client.InferenceServerClient(router.http) as client:
        tensor = http_client.InferInput("INPUT", [1, 1], "FP32")
        tensor.set_data_from_numpy(np.array([[7.0]], dtype="float32"))
        pool = {"x-tidegate-pool": f"{shell.namespace}/echo"}
        result = client.infer("echo", [tensor], headers=pool)
        return result.as_numpy("OUTPUT").tolist() == [[7.0]]


@pytest.mark.parametrize(
    ("operation", "reason", "says"),
    [
        pytest.param(
            {"op": "add", "path": "/spec/template/image", "value": "docker.io/tidegate/absent:0"},
            "ImagePullFailed",
            "absent",
            id="an-image-that-does-not-exist",
        ),
        pytest.param(
            {"op": "replace", "path": "/spec/template/models/0/backend", "value": "tensorrt"},
            "BackendNotInImage",
            "tensorrt",
            id="a-backend-that-the-image-lacks",
        ),
        pytest.param(
            {
                "op": "add",
                "path": "/spec/template/models/0/source",
                "value": {"uri": "https://127.0.0.1:9/model.py"},
            },
            "ModelFetchFailed",
            "127.0.0.1:9",
            id="a-source-that-nobody-serves",
        ),
        pytest.param(
            {
                "op": "add",
                "path": "/spec/template/models/0/config/input/0/data_type",
                "value": "TYPE_NONSENSE",
            },
            "ModelConfigInvalid",
            "data_type",
            id="a-config-that-triton-does-not-know",
        ),
    ],
)
def test_a_revision_that_cannot_start_is_named_and_the_old_one_serves_on(
    echo, router, operation, reason, says
):
    stable = echo.get(POOL)["status"]["stableRevision"]
    edit(echo, operation)
    until(lambda: condition(echo, "Ready").get("reason") == reason, timeout_s=90, what=reason)
    ready = condition(echo, "Ready")
    assert ready["status"] == "False"
    assert says in ready["message"]
    assert condition(echo, "WorkersAvailable")["status"] == "True"
    assert echo.get(POOL)["status"]["stableRevision"] == stable
    assert answers(router, echo)


def test_no_schedulable_accelerator_is_said_not_left_pending(echo):
    edit(
        echo,
        {"op": "add", "path": "/spec/accelerators/0/resources/nvidia.com~1gpu", "value": 1},
    )
    until(lambda: condition(echo, "Ready").get("reason") == "InsufficientAccelerator", timeout_s=60)
    assert "nvidia.com/gpu" in condition(echo, "Ready")["message"]
    assert condition(echo, "WorkersAvailable")["status"] == "True"


def test_killed_workers_and_operators_come_back_and_no_answer_is_wrong(echo, router, release):
    pods = echo.get("pods", "-l", "tidegate.dev/pool=echo")["items"]
    echo.kubectl("delete", "pod", pods[0]["metadata"]["name"], "--grace-period=0", "--force")
    release.kubectl(
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=tidegate-operator",
        "--grace-period=0",
        "--force",
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert answers(router, echo)
    until(lambda: condition(echo, "Ready").get("status") == "True", timeout_s=90)
    until(lambda: echo.get(POOL)["status"]["readyReplicas"] == 2, timeout_s=60)


def test_back_to_the_old_template_is_the_old_revision(echo):
    stable = echo.get(POOL)["status"]["stableRevision"]
    path = "/spec/template/pod/env/0/value"
    edit(echo, {"op": "replace", "path": path, "value": "3"})
    until(lambda: echo.get(POOL)["status"]["desiredRevision"] != stable)
    edit(echo, {"op": "replace", "path": path, "value": "1"})
    until(lambda: echo.get(POOL)["status"]["desiredRevision"] == stable)
    echo.kubectl("wait", "--for=condition=Ready", POOL, "--timeout=120s")
    assert echo.get(POOL)["status"]["stableRevision"] == stable
