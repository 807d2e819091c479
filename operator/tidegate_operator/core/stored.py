"""What ControllerRevisions keep: what the user wrote, and what each worker set was made from.

A ControllerRevision's data is immutable, so a revision (the user's template and the resolved
image) and each of its worker sets (the rendered pod template and models) have one each. An
existing set is always applied from its own: a new operator restarts nothing (ADR 0003).
"""

from typing import Literal

from pydantic import Field, ValidationError

from tidegate_api.meta import ApiModel
from tidegate_api.template import JsonObject
from tidegate_api.workermodels import WorkerModels
from tidegate_operator.core.observation import ObservedRevision


class StoredRevision(ApiModel):
    """Data of ControllerRevision `<pool>-<revision>`."""

    schema_: Literal["revision.v1"] = Field(default="revision.v1", alias="schema")
    template: JsonObject
    image: str


class StoredSet(ApiModel):
    """Data of ControllerRevision `<pool>-<class>-<set>`, named as its Deployment."""

    schema_: Literal["worker-set.v1"] = Field(default="worker-set.v1", alias="schema")
    revision: str
    accelerator: str
    identity: JsonObject
    pod_template: JsonObject
    models: WorkerModels


def read_revision(observed: ObservedRevision) -> StoredRevision | None:
    """Return the revision kept in an object, None if it keeps something else."""
    try:
        return StoredRevision.model_validate({"schema": "", **observed.data})
    except ValidationError:
        return None


def read_set(observed: ObservedRevision) -> StoredSet | None:
    """Return the worker set kept in an object, None if it keeps something else."""
    try:
        return StoredSet.model_validate({"schema": "", **observed.data})
    except ValidationError:
        return None
