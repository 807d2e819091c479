"""The worker agent: PID 1 of a worker, supervises tritonserver and reports its state.

`python3 -m tidegate_worker` reads everything from the environment (settings.py lists each
variable with its default). Those that the operator sets on every worker:

TIDEGATE_POD_UID, TIDEGATE_POD_NAME   who this worker is
TIDEGATE_REVISION, TIDEGATE_CLASS     what it runs, and on which class of accelerator
TIDEGATE_DRAIN_TIMEOUT                seconds that SIGTERM waits for routers and work
TIDEGATE_SIMULATED_DEVICES            "N" or "N:MEMORY" devices that do not exist, labelled

It serves /healthz, /readyz, /v1/state and /metrics on TIDEGATE_AGENT_PORT; Triton serves
inference on TIDEGATE_HTTP_PORT and TIDEGATE_GRPC_PORT. Exit status: 0 after SIGTERM, 1 when
tritonserver crashed three times within a minute, 2 when the configuration is unusable.
"""
