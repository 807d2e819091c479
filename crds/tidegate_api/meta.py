"""Base of every API model, and the parts of Kubernetes metadata that we read."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """A frozen value of the wire: camelCase outside, snake_case inside.

    Unknown fields are ignored: the API server prunes them already, and routers and workers
    of the next version may say more than this one understands.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore"
    )

    def to_wire(self) -> dict[str, object]:
        """Return the JSON form: camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ObjectMeta(ApiModel):
    """The metadata that decisions read."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str = ""  # RFC 3339, UTC
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Condition(ApiModel):
    """metav1.Condition: lastTransitionTime moves only when status does."""

    type: str = Field(max_length=316, description="unique in the list")
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=1024, description="CamelCase, stable: programs read it")
    message: str = Field(default="", max_length=32768, description="for people")
    observed_generation: int = Field(
        default=0, ge=0, description="metadata.generation that this condition judged"
    )
    last_transition_time: str = Field(
        max_length=40,
        description="when status last changed; RFC 3339, UTC",
        json_schema_extra={"format": "date-time"},
    )
