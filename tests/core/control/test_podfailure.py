import pytest

from tidegate_api.names import Reason
from tidegate_api.pool import AcceleratorClass
from tidegate_api.state import ModelState, Phase, WorkerState
from tidegate_operator.core.observation import ContainerProblem, ObservedPod, Scrape
from tidegate_operator.core.podfailure import Patient, diagnose

GPU = AcceleratorClass(name="a10g", kind="GPU", resources={"nvidia.com/gpu": 1})
PINNED = AcceleratorClass(name="a10g", kind="CPU", node_selector={"zone": "x"})


def patient(*, problems=(), accelerator=GPU, scrape=None, now_s=1000.0, **pod):
    base = {"uid": "u", "name": "vision-a10g-1-x", "worker_set": "s", "revision": "r"}
    return Patient(
        pod=ObservedPod(
            **{**base, "accelerator": "a10g", "created_s": 990.0, **pod}, problems=tuple(problems)
        ),
        accelerator=accelerator,
        scrape=scrape or Scrape(),
        now_s=now_s,
    )


def problem(**more):
    return ContainerProblem(container="worker", **more)


def scraped(error="", **state):
    return Scrape(
        scraped_s=1000.0,
        error=error,
        state=WorkerState(uid="u", **{"phase": Phase.NOT_READY, **state}),
    )


NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
NO_CPU = "0/3 nodes are available: 3 Insufficient cpu."
NO_NODE = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."


@pytest.mark.parametrize(
    ("case", "reason", "text"),
    [
        pytest.param(
            patient(unschedulable_message=NO_GPU),
            Reason.INSUFFICIENT_ACCELERATOR,
            NO_GPU,
            id="no-free-device",
        ),
        pytest.param(
            patient(unschedulable_message=NO_NODE, accelerator=PINNED),
            Reason.INSUFFICIENT_ACCELERATOR,
            NO_NODE,
            id="no-node-of-the-class",
        ),
        pytest.param(
            patient(unschedulable_message=NO_CPU), Reason.UNSCHEDULABLE, NO_CPU, id="no-free-cpu"
        ),
        pytest.param(
            patient(unschedulable_message=NO_NODE, accelerator=None),
            Reason.UNSCHEDULABLE,
            NO_NODE,
            id="a-removed-class",
        ),
        pytest.param(
            patient(problems=[problem(waiting_reason="ErrImagePull", waiting_message="denied")]),
            Reason.IMAGE_PULL_FAILED,
            "ErrImagePull: denied",
            id="the-image-is-denied",
        ),
        pytest.param(
            patient(problems=[problem(waiting_reason="CreateContainerConfigError")]),
            Reason.CONTAINER_CONFIG_INVALID,
            "CreateContainerConfigError",
            id="a-secret-is-missing",
        ),
        pytest.param(
            patient(
                problems=[
                    problem(
                        waiting_reason="CrashLoopBackOff",
                        terminated_reason="OOMKilled",
                        exit_code=137,
                        restarts=4,
                    )
                ]
            ),
            Reason.CONTAINER_CRASHED,
            "OOMKilled (exit code 137, 4 restarts)",
            id="killed-for-memory",
        ),
        pytest.param(
            patient(problems=[problem(exit_code=1, terminated_message="no busybox\n")]),
            Reason.CONTAINER_CRASHED,
            "ended (exit code 1): no busybox",
            id="an-init-container-failed",
        ),
        pytest.param(
            patient(phase="Failed", phase_reason="Evicted", phase_message="low on memory"),
            Reason.CONTAINER_CRASHED,
            "low on memory",
            id="evicted",
        ),
        pytest.param(
            patient(
                scrape=scraped(
                    models=[
                        ModelState(name="ok", ready=True),
                        ModelState(name="m", reason="BackendNotInImage", message="no onnxruntime"),
                    ]
                )
            ),
            Reason.BACKEND_NOT_IN_IMAGE,
            "model m: no onnxruntime",
            id="the-agent-names-model-and-backend",
        ),
        pytest.param(
            patient(scrape=scraped(reason="ModelFetchFailed", message="404")),
            Reason.MODEL_FETCH_FAILED,
            "404",
            id="the-agent-cannot-fetch",
        ),
        pytest.param(
            patient(scrape=scraped(reason="SomethingNew", message="hm")),
            Reason.MODEL_NOT_READY,
            "hm",
            id="a-reason-of-a-newer-agent",
        ),
        pytest.param(
            patient(
                problems=[problem(waiting_reason="ContainerCreating")],
                created_s=900.0,
            ),
            Reason.CONTAINER_CONFIG_INVALID,
            "waits in ContainerCreating for over a minute",
            id="a-volume-does-not-come",
        ),
    ],
)
def test_the_reason_and_the_text_are_the_clusters(case, reason, text):
    failure = diagnose(case)
    assert failure.reason is reason
    assert text in failure.message
    assert failure.message.startswith("pod vision-a10g-1-x: ")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(patient(), id="nothing-known-yet"),
        pytest.param(
            patient(problems=[problem(waiting_reason="ContainerCreating")]), id="just-creating"
        ),
        pytest.param(patient(problems=[problem(exit_code=0)]), id="an-init-container-ended-well"),
        pytest.param(
            patient(scrape=scraped(error="timeout", reason="ModelFetchFailed")),
            id="an-old-report-of-a-silent-agent",
        ),
        pytest.param(patient(scrape=scraped(phase=Phase.FETCHING)), id="fetching-is-no-failure"),
    ],
)
def test_a_starting_worker_has_no_failure(case):
    assert diagnose(case) is None


def test_long_texts_are_cut():
    case = patient(problems=[problem(waiting_reason="ErrImagePull", waiting_message="x" * 9999)])
    assert len(diagnose(case).message) == 1000
