"""What a worker runs: models, their Triton settings, and the allow-listed part of its pod.

No field under here has a schema default: the revision hash covers what the user wrote, and
a persisted default could not be told from it (docs/adr/0003-revisions.md).
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tidegate_api import rules
from tidegate_api.meta import ApiModel
from tidegate_api.quantity import DURATION_PATTERN, QUANTITY_PATTERN

Duration = Annotated[str, Field(pattern=DURATION_PATTERN, max_length=32)]
Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=32)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
ModelName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,98}[A-Za-z0-9])?$", max_length=100)
]
LabelValue = Annotated[str, Field(max_length=63)]
AnnotationValue = Annotated[str, Field(max_length=4096)]
JsonObject = dict[str, object]


class Credentials(ApiModel):
    """A Secret that the kubelet mounts read-only; the operator never reads it."""

    secret_name: Name = Field(description="a Secret in the pool's namespace, mounted read-only")


class ModelSource(ApiModel):
    """Where a model's files come from, and what they must hash to."""

    uri: str = Field(
        min_length=1,
        max_length=2048,
        pattern=r"^(oci|pvc|configmap|file|https|s3|gs)://.+$",
        description="oci://IMAGE#/path, pvc://CLAIM/PATH, configmap://NAME[/KEY], file:///PATH, "
        "https://, s3:// or gs://",
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^([0-9a-f]{64})?$",
        max_length=64,
        description="of the file, or of a folder: find . -type f -print0 | LC_ALL=C sort -z | "
        "xargs -0 sha256sum | sha256sum. Empty: the model is used unverified",
    )
    version: int | None = Field(
        default=None,
        ge=1,
        le=2**31 - 1,
        description="which numeric folder of a Triton model folder to serve; needed where it "
        "holds more than one",
    )
    credentials: Credentials | None = Field(
        default=None, description="for https, s3 and gs; re-read at each fetch"
    )


class BatchQueue(ApiModel):
    """Triton's own queue in front of the dynamic batcher."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.QUEUE_TIMEOUT))

    max_size: int | None = Field(
        default=None, ge=0, le=1_000_000, description="requests; more are refused. 0: no limit"
    )
    timeout: Duration | None = Field(
        default=None, description="how long a request may wait; 0s: for ever"
    )
    timeout_action: Literal["Reject", "Delay"] | None = Field(
        default=None, description="what happens then: refuse it, or run it after all others"
    )


class DynamicBatching(ApiModel):
    """Triton's dynamic batcher; absent means off."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.QUEUE_DELAY))

    preferred_batch_sizes: list[Annotated[int, Field(ge=1, le=65536)]] | None = Field(
        default=None, max_length=16, description="sizes worth waiting for, within maxQueueDelay"
    )
    max_queue_delay: Duration | None = Field(
        default=None, description="how long a request may wait for others to share its batch"
    )
    queue: BatchQueue | None = None


class InstanceGroup(ApiModel):
    """Execution instances of a model on one kind of device."""

    kind: Literal["GPU", "CPU"] | None = Field(
        default=None, description="omitted: the kind of the worker's class"
    )
    count: int = Field(ge=1, le=64, description="instances per device")


class WarmupInput(ApiModel):
    """One input tensor of a warmup (and readiness) inference."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.FILL_FILE))

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
    dims: list[Annotated[int, Field(ge=0, le=2**31 - 1)]] = Field(
        max_length=8, description="without the batch dimension"
    )
    fill: Literal["Zero", "Random", "File"] | None = Field(
        default=None, description="omitted: Zero"
    )
    file: str | None = Field(
        default=None,
        max_length=253,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="with fill File: the name of a file in the model's folder warmup/",
    )


class Warmup(ApiModel):
    """One warmup request; the first is also the readiness inference."""

    inputs: dict[str, WarmupInput] = Field(min_length=1, max_length=64, description="by input name")


class ModelOverride(ApiModel):
    """The Triton settings of a model that a class of accelerator may set differently."""

    model_config = ConfigDict(
        json_schema_extra=rules.on(rules.BATCH_SIZES_FIT, rules.BATCHING_NEEDS_BATCH_SIZE)
    )

    backend: str | None = Field(
        default=None,
        min_length=1,
        max_length=63,
        description="Triton backend, e.g. onnxruntime, tensorrt, python; omitted: Triton's own "
        "autocomplete",
    )
    max_batch_size: int | None = Field(
        default=None, ge=0, le=65536, description="0: the model has no batch dimension"
    )
    dynamic_batching: DynamicBatching | None = Field(
        default=None, description="requests that share a batch; absent: off, {}: Triton's defaults"
    )
    instances: list[InstanceGroup] | None = Field(
        default=None, min_length=1, max_length=8, description="copies that run side by side"
    )
    warmup: list[Warmup] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="requests run before the worker is ready; the first is also the readiness "
        "inference. Absent: zeros",
    )
    memory: Quantity | None = Field(default=None, description="device memory that it needs")
    config: JsonObject | None = Field(
        default=None,
        description="other ModelConfig fields, merged last, checked by Triton",
        json_schema_extra=rules.config_schema(),
    )


class ResponseCache(ApiModel):
    """A cache of answers in each router; only where equal requests have equal answers."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.RESPONSE_CACHE_TTL))

    ttl: Duration = Field(description="how long an answer is given again")


class ModelBehavior(ModelOverride):
    """What routers do with a model's requests, beside its Triton settings."""

    model_config = ConfigDict(
        json_schema_extra=rules.on(
            rules.BATCH_SIZES_FIT, rules.BATCHING_NEEDS_BATCH_SIZE, rules.CACHE_NEEDS_IDEMPOTENT
        )
    )

    idempotent: bool | None = Field(
        default=None,
        description="false: never retried once bytes reached a worker. Omitted: true, except for "
        "sequence and decoupled models",
    )
    response_cache: ResponseCache | None = Field(
        default=None,
        description="routers answer equal requests from memory. Omitted: never. Never for sequence "
        "and decoupled models, or requests with an id or cache-control: no-store",
    )


class Model(ModelBehavior):
    """A model of the pool."""

    name: ModelName = Field(description="what requests ask for")
    source: ModelSource


class ClassModel(ModelOverride):
    """A model's settings on one class of accelerator, by name."""

    name: ModelName = Field(description="a model of template.models")


class PodVolume(ApiModel):
    """A volume of an allowed kind, mounted at mountPath of the worker container."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.ONE_VOLUME_KIND))

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,50}[a-z0-9])?$", max_length=52)]
    mount_path: str = Field(min_length=1, max_length=1024, pattern=r"^/")
    read_only: bool | None = Field(default=None, description="omitted: false")
    persistent_volume_claim: JsonObject | None = None
    config_map: JsonObject | None = None
    secret: JsonObject | None = None
    empty_dir: JsonObject | None = None
    csi: JsonObject | None = None


class PodSettings(ApiModel):
    """The allow-listed part of a worker's pod; Kubernetes' own shapes inside."""

    env: list[JsonObject] | None = Field(default=None, max_length=100)
    env_from: list[JsonObject] | None = Field(default=None, max_length=20)
    resources: JsonObject | None = Field(
        default=None, description="requests and limits; a class's resources go before these"
    )
    node_selector: dict[str, LabelValue] | None = Field(default=None, max_length=32)
    tolerations: list[JsonObject] | None = Field(default=None, max_length=32)
    affinity: JsonObject | None = None
    topology_spread_constraints: list[JsonObject] | None = Field(default=None, max_length=8)
    runtime_class_name: Name | None = None
    priority_class_name: Name | None = None
    service_account_name: Name | None = None
    image_pull_secrets: list[JsonObject] | None = Field(default=None, max_length=8)
    volumes: list[PodVolume] | None = Field(
        default=None, max_length=16, json_schema_extra=rules.list_map("name")
    )
    labels: dict[str, LabelValue] | None = Field(default=None, max_length=32)
    annotations: dict[str, AnnotationValue] | None = Field(default=None, max_length=32)
    shm_size: Quantity | None = Field(default=None, description="size of /dev/shm")


class WorkerTemplate(ApiModel):
    """A change in here is a new revision."""

    image: str | None = Field(
        default=None, max_length=512, description="worker image; omitted: the operator's default"
    )
    models: list[Model] = Field(
        min_length=1,
        max_length=64,
        description="what every worker serves",
        json_schema_extra=rules.list_map("name"),
    )
    pod: PodSettings | None = None
