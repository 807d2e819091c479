"""Rules between fields of the kinds, once: their CEL for the API server, their message.

The models carry them into the CRD (`on`); poolchecks, rolloutchecks and templatechecks hold the
Python twin of each, for `tidegate lint` and for objects that never passed an API server. A message
names the field.
"""

import re
from dataclasses import dataclass

from pydantic.config import JsonDict


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`cel` is true for a valid object; `field` is what breaks it, relative to its model."""

    cel: str
    message: str
    field: str = ""

    def to_wire(self) -> JsonDict:
        """Return the entry of x-kubernetes-validations."""
        wire: JsonDict = {"rule": self.cel, "message": self.message}
        return wire | ({"fieldPath": f".{self.field}"} if self.field else {})


def on(*rules: Rule) -> JsonDict:
    """Return the schema extension that puts `rules` on a model."""
    return {"x-kubernetes-validations": [rule.to_wire() for rule in rules]}


def _at_most(field: str, most: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || duration(self.{field}) <= duration('{most}')",
        message=f"{field} must be at most {most}",
        field=field,
    )


def _positive(field: str, most: str) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || (duration(self.{field}) > duration('0s')"
        f" && duration(self.{field}) <= duration('{most}'))",
        message=f"{field} must be more than 0s and at most {most}",
        field=field,
    )


POOL_NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,34}[a-z0-9])?$"

POOL_NAME_REGEX = re.compile(POOL_NAME_PATTERN)

POOL_NAME = Rule(
    cel=f"self.metadata.name.matches('{POOL_NAME_PATTERN}')",
    message="metadata.name must be at most 36 lower-case letters, digits and dashes, begin with a"
    " letter and not end with a dash: the names of its workers derive from it",
)
# The API server's own: lists of type map refuse an equal key (see list_map).
UNIQUE_NAMES = Rule(cel="", message="names must be unique in the list")
CLASS_MODEL_KNOWN = Rule(
    cel="self.accelerators.all(a, !has(a.models)"
    " || a.models.all(o, self.template.models.exists(m, m.name == o.name)))",
    message="accelerators[].models[].name must name a model of template.models",
    field="accelerators",
)
GPU_INSTANCES_NEED_GPU_CLASS = Rule(
    cel="self.accelerators.all(a, a.kind == 'GPU' || self.template.models.all(m,"
    " !has(m.instances) || m.instances.all(i, !has(i.kind) || i.kind != 'GPU')"
    " || (has(a.models) && a.models.exists(o, o.name == m.name && has(o.instances)))))",
    message="template.models[].instances[].kind GPU cannot run on a class of another kind: omit"
    " the kind, or give that class an entry in accelerators[].models with its own instances",
    field="accelerators",
)
CLASS_INSTANCES_FIT = Rule(
    cel="self.kind == 'GPU' || !has(self.models) || self.models.all(o, !has(o.instances)"
    " || o.instances.all(i, !has(i.kind) || i.kind != 'GPU'))",
    message="models[].instances[].kind GPU needs a class of kind GPU",
    field="models",
)
REPLICAS_ORDERED = Rule(
    cel="!has(self.min) || !has(self.max) || self.min <= self.max",
    message="replicas.min must be at most replicas.max",
    field="min",
)
BATCH_SIZES_FIT = Rule(
    cel="!has(self.dynamicBatching) || !has(self.dynamicBatching.preferredBatchSizes)"
    " || !has(self.maxBatchSize)"
    " || self.dynamicBatching.preferredBatchSizes.all(s, s <= self.maxBatchSize)",
    message="dynamicBatching.preferredBatchSizes must each be at most maxBatchSize",
    field="dynamicBatching.preferredBatchSizes",
)
BATCHING_NEEDS_BATCH_SIZE = Rule(
    cel="!has(self.dynamicBatching) || !has(self.maxBatchSize) || self.maxBatchSize > 0",
    message="dynamicBatching needs maxBatchSize of at least 1: 0 means that the model has no"
    " batch dimension",
    field="maxBatchSize",
)
FILL_FILE = Rule(
    cel="(has(self.fill) && self.fill == 'File') == has(self.file)",
    message="file must be set with fill File, and only then",
    field="file",
)
ONE_VOLUME_KIND = Rule(
    cel="[has(self.persistentVolumeClaim), has(self.configMap), has(self.secret),"
    " has(self.emptyDir), has(self.csi)].filter(x, x).size() == 1",
    message="a volume needs exactly one of persistentVolumeClaim, configMap, secret, emptyDir, csi",
)
SCORE_WEIGHTS_COUNT = Rule(
    # The API server judges `default: {}` before it fills in the defaults inside.
    cel="self.?memory.orValue(1.0) + self.?queue.orValue(1.0) + self.?latency.orValue(1.0)"
    " + self.?utilization.orValue(1.0) + self.?temperature.orValue(1.0) > 0.0",
    message="scoreWeights must not all be 0",
)
QUEUE_DELAY = _at_most("maxQueueDelay", "1h")
QUEUE_TIMEOUT = _at_most("timeout", "1h")
REQUEST_TIMEOUT = _positive("timeout", "24h")
MAX_WAIT = _at_most("maxWait", "1h")
NO_WORKERS_TTL = _at_most("noWorkersTTL", "1h")
TIER_TARGET = _positive("p99Target", "1h")
RESPONSE_CACHE_TTL = _positive("ttl", "24h")
CACHE_NEEDS_IDEMPOTENT = Rule(
    cel="!has(self.responseCache) || !has(self.idempotent) || self.idempotent",
    message="responseCache needs a model whose answers repeat: remove it, or idempotent: false",
    field="responseCache",
)
PER_TRY_TIMEOUT = _positive("perTryTimeout", "24h")
BASE_EJECTION = _positive("baseEjection", "1h")
MAX_EJECTION = _positive("maxEjection", "24h")
EJECTION_ORDERED = Rule(
    cel="duration(self.?baseEjection.orValue('5s')) <= duration(self.?maxEjection.orValue('300s'))",
    message="ejection.baseEjection must be at most ejection.maxEjection",
    field="baseEjection",
)
DRAIN_TIMEOUT = _at_most("timeout", "24h")

ONE_STEP_KIND = Rule(
    cel="has(self.setWeight) != has(self.pause)",
    message="a step needs exactly one of setWeight, pause",
)
STEPS_RISE = Rule(
    cel="!has(self.steps) || self.steps.filter(s, has(s.setWeight)).map(s, s.setWeight).isSorted()",
    message="steps[].setWeight must not go down: abort is what takes weight away",
    field="steps",
)
POOL_FIXED = Rule(
    cel="self.poolRef.name == oldSelf.poolRef.name",
    message="poolRef.name cannot change: make another ModelRollout for another pool",
    field="poolRef",
)
SHADOW_NEEDS_MIRROR = Rule(
    cel="!has(self.analysis) || !has(self.analysis.shadow)"
    " || (has(self.mirror) && self.mirror.percent > 0)",
    message="analysis.shadow compares mirrored requests: set mirror.percent above 0",
    field="analysis",
)
LATENCY_LIMIT = Rule(
    cel="has(self.max) || has(self.maxRatioToStable)",
    message="p95Latency needs max, maxRatioToStable or both",
)
PROMETHEUS_BOUND = Rule(
    cel="has(self.min) || has(self.max)",
    message="prometheus[] needs min, max or both",
)
ANALYSIS_INTERVAL = Rule(
    cel="!has(self.interval) || (duration(self.interval) >= duration('1s')"
    " && duration(self.interval) <= duration('1h'))",
    message="interval must be 1s to 1h",
    field="interval",
)
ANALYSIS_INITIAL_DELAY = _at_most("initialDelay", "24h")
ANALYSIS_MAX_WINDOW = _positive("maxWindow", "24h")
PROGRESS_DEADLINE = _positive("progressDeadline", "168h")
SCALE_DOWN_DELAY = _at_most("scaleDownDelay", "24h")

# ModelConfig field -> (its JSON type, what to use instead). Declared as properties only so that
# CEL can refuse them; everything else in `config` passes to Triton as written.
TYPED_ELSEWHERE: dict[str, tuple[str, str]] = {
    "name": ("string", "models[].name"),
    "platform": ("string", "models[].backend"),
    "backend": ("string", "models[].backend"),
    "max_batch_size": ("integer", "models[].maxBatchSize"),
    "dynamic_batching": ("object", "models[].dynamicBatching"),
    "instance_group": ("array", "models[].instances"),
    "model_warmup": ("array", "models[].warmup"),
    "version_policy": ("object", "models[].source.version"),
    "response_cache": ("object", "models[].responseCache, which routers keep"),
}


def config_rule(field: str) -> Rule:
    """Return the rule that refuses one field of `config` and names the typed one."""
    _, instead = TYPED_ELSEWHERE[field]
    return Rule(cel=f"!has(self.{field})", message=f"config.{field} is refused: use {instead}")


def config_schema() -> JsonDict:
    """Return the schema extension of models[].config."""
    return {
        "properties": {field: _declared(kind) for field, (kind, _) in TYPED_ELSEWHERE.items()},
        **on(*map(config_rule, TYPED_ELSEWHERE)),
    }


def _declared(kind: str) -> JsonDict:
    free: JsonDict = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if kind == "object":
        return free
    if kind == "array":
        return {"type": "array", "maxItems": 64, "items": free}
    return {"type": kind} | ({"maxLength": 253} if kind == "string" else {})


def list_map(*keys: str) -> JsonDict:
    """Return the schema extension of a list whose entries are told apart by `keys`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [*keys]}
