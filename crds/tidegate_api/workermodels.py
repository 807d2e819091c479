"""What the operator tells an agent to serve: key models.json of ConfigMap `<deployment>-models`.

It lies outside the pod template and is mounted whole, so that a later change of it can reach a
running worker; a restarted pod reads it again.
"""

from typing import Literal

from pydantic import Field

from tidegate_api.meta import ApiModel
from tidegate_api.template import Model

WORKER_MODELS_SCHEMA: Literal["worker-models.v1"] = "worker-models.v1"
MODELS_KEY = "models.json"
MODELS_DIRECTORY = "/etc/tidegate/models"  # where the ConfigMap is mounted
SOURCES_DIRECTORY = "/mnt/sources"  # one folder per mounted or copied source
CREDENTIALS_DIRECTORY = "/mnt/credentials"  # one folder per Secret
STATE_DIRECTORY = "/var/lib/tidegate"  # writable: repository, backends, downloads


class DesiredModel(ApiModel):
    """A model with its class's overrides merged and its source resolved to a local path."""

    model: Model
    path: str | None = Field(
        default=None,
        description="where an oci, pvc, configmap or file source lies in the container",
    )
    credentials_path: str | None = None


class SecondRevision(ApiModel):
    """Another revision that the same Triton holds beside the main one (`surge: InPlace`)."""

    revision: str
    models: list[DesiredModel]


class WorkerModels(ApiModel):
    """The whole document. A pod is ready when the main revision is, whatever the second one does.

    Once what was the second revision is the main one, its copies stay loaded as they are and
    those of the revision that is no longer named are unloaded.
    """

    schema_: Literal["worker-models.v1"] = Field(default=WORKER_MODELS_SCHEMA, alias="schema")
    generation: int = 1
    revision: str
    kind: Literal["GPU", "CPU", "Neuron"] = "CPU"
    models: list[DesiredModel]
    alongside: SecondRevision | None = None


def copy_name(model: str, revision: str) -> str:
    """Return what a second revision's copy of a model is called in Triton: `<model>--<rev8>`."""
    return f"{model}--{revision[:8]}"
