"""The command line of tritonserver. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate_api.names import HEADER_RESTRICTED_KEY

_RESTRICTED = "model-repository,model-config,shared-memory,trace,logging"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """What one start of tritonserver depends on."""

    binary: str
    repository: str
    backends: str
    http_port: int
    grpc_port: int
    metrics_port: int
    exit_timeout_s: int  # only for connections: models are unloaded before
    key: str  # random per start; guards the control APIs
    shm_prefix: str  # of the Python backend's regions in /dev/shm, so that a crash can be cleaned


def command(plan: ServerPlan) -> Sequence[str]:
    """Return argv.

    Models are loaded one by one (explicit), so each failure has a reason and the rest serves.
    Inference is open on one HTTP and one gRPC port; what could change the server asks the key.
    """
    return (
        plan.binary,
        f"--model-repository={plan.repository}",
        f"--backend-directory={plan.backends}",
        "--model-control-mode=explicit",
        "--exit-on-error=false",
        "--strict-readiness=true",
        f"--exit-timeout-secs={plan.exit_timeout_s}",
        f"--http-port={plan.http_port}",
        f"--grpc-port={plan.grpc_port}",
        f"--http-restricted-api={_RESTRICTED}:{HEADER_RESTRICTED_KEY}={plan.key}",
        f"--grpc-restricted-protocol={_RESTRICTED}:{HEADER_RESTRICTED_KEY}={plan.key}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={plan.metrics_port}",
        "--metrics-interval-ms=1000",
        "--metrics-config=summary_latencies=true",
        f"--backend-config=python,shm-region-prefix-name={plan.shm_prefix}",
    )
