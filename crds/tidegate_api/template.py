"""What a worker runs: models, their Triton settings, and the allow-listed part of its pod.

No field under here has a schema default: the revision hash covers what the user wrote, and
a persisted default could not be told from it (docs/adr/0003-revisions.md).
"""

from typing import Annotated, Literal

from pydantic import Field

from tidegate_api.meta import ApiModel
from tidegate_api.quantity import DURATION_PATTERN, QUANTITY_PATTERN

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=32)]
Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=32)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,98}[A-Za-z0-9])?$")]
JsonObject = dict[str, object]


class Credentials(ApiModel):
    """A Secret that the kubelet mounts read-only; the operator never reads it."""

    secret_name: Name


class ModelSource(ApiModel):
    """Where a model's files come from, and what they must hash to."""

    uri: str = Field(
        min_length=1,
        max_length=2048,
        pattern=r"^(oci|pvc|configmap|file|https|s3|gs)://.+$",
        description="oci://IMAGE#/path, pvc://CLAIM/PATH, configmap://NAME[/KEY], file:///PATH, "
        "https://, s3:// or gs://",
    )
    sha256: str | None = Field(default=None, pattern=r"^([0-9a-f]{64})?$", max_length=64)
    version: int | None = Field(default=None, ge=1, le=2**31 - 1)
    credentials: Credentials | None = None


class BatchQueue(ApiModel):
    """Triton's own queue in front of the dynamic batcher."""

    max_size: int | None = Field(default=None, ge=0, le=1_000_000)
    timeout: Duration | None = None
    timeout_action: Literal["Reject", "Delay"] | None = None


class DynamicBatching(ApiModel):
    """Triton's dynamic batcher; absent means off."""

    preferred_batch_sizes: list[Annotated[int, Field(ge=1, le=65536)]] | None = Field(
        default=None, max_length=16
    )
    max_queue_delay: Duration | None = None
    queue: BatchQueue | None = None


class InstanceGroup(ApiModel):
    """Execution instances of a model on one kind of device."""

    kind: Literal["GPU", "CPU"] | None = None
    count: int = Field(ge=1, le=64)


class WarmupInput(ApiModel):
    """One input tensor of a warmup (and readiness) inference."""

    data_type: Literal[
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "BF16",
        "FP32",
        "FP64",
        "BYTES",
    ]
    dims: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(max_length=8)
    fill: Literal["Zero", "Random", "File"] | None = None
    file: str | None = Field(
        default=None, max_length=253, description="with fill File: a name in the model's warmup/"
    )


class Warmup(ApiModel):
    """One warmup request; the first is also the readiness inference."""

    inputs: dict[Name, WarmupInput] = Field(min_length=1, max_length=64)


class ModelOverride(ApiModel):
    """The Triton settings of a model that a class of accelerator may set differently."""

    backend: str | None = Field(default=None, min_length=1, max_length=63)
    max_batch_size: int | None = Field(default=None, ge=0, le=65536)
    dynamic_batching: DynamicBatching | None = None
    instances: list[InstanceGroup] | None = Field(default=None, min_length=1, max_length=8)
    warmup: list[Warmup] | None = Field(default=None, min_length=1, max_length=8)
    memory: Quantity | None = None
    config: JsonObject | None = Field(
        default=None, description="other ModelConfig fields, merged last, checked by Triton"
    )


class Model(ModelOverride):
    """A model of the pool."""

    name: ModelName
    source: ModelSource
    idempotent: bool | None = Field(
        default=None, description="false: never retried once bytes reached a worker"
    )


class ClassModel(ModelOverride):
    """A model's settings on one class of accelerator, by name."""

    name: ModelName


class PodVolume(ApiModel):
    """A volume of an allowed kind, mounted at `mount_path` of the worker container."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$", max_length=52)]
    mount_path: str = Field(min_length=1, max_length=1024, pattern=r"^/")
    read_only: bool | None = None
    persistent_volume_claim: JsonObject | None = None
    config_map: JsonObject | None = None
    secret: JsonObject | None = None
    empty_dir: JsonObject | None = None
    csi: JsonObject | None = None


class PodSettings(ApiModel):
    """The allow-listed part of a worker's pod; Kubernetes' own shapes inside."""

    env: list[JsonObject] | None = Field(default=None, max_length=100)
    env_from: list[JsonObject] | None = Field(default=None, max_length=20)
    resources: JsonObject | None = None
    node_selector: dict[str, str] | None = Field(default=None, max_length=32)
    tolerations: list[JsonObject] | None = Field(default=None, max_length=32)
    affinity: JsonObject | None = None
    topology_spread_constraints: list[JsonObject] | None = Field(default=None, max_length=8)
    runtime_class_name: Name | None = None
    priority_class_name: Name | None = None
    service_account_name: Name | None = None
    image_pull_secrets: list[JsonObject] | None = Field(default=None, max_length=8)
    volumes: list[PodVolume] | None = Field(default=None, max_length=16)
    labels: dict[str, str] | None = Field(default=None, max_length=32)
    annotations: dict[str, str] | None = Field(default=None, max_length=32)
    shm_size: Quantity | None = None


class WorkerTemplate(ApiModel):
    """A change in here is a new revision."""

    image: str | None = Field(default=None, max_length=512)
    models: list[Model] = Field(min_length=1, max_length=64)
    pod: PodSettings | None = None
