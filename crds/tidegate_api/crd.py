"""The CustomResourceDefinitions, as plain documents made from the models. Pure."""

from collections.abc import Sequence

from tidegate_api.names import CATEGORY, GROUP, PLURALS, SHORT_NAMES, VERSION, Kind
from tidegate_api.pool import InferencePoolSpec, InferencePoolStatus
from tidegate_api.rollout import ModelRolloutSpec, ModelRolloutStatus
from tidegate_api.routetable import RouteTableSpec
from tidegate_api.rules import POOL_NAME, on
from tidegate_api.structural import Schema, structural

# A new object has this status at once: without one, kstatus would call it Current before the
# operator has seen it, and `helm --wait` or Flux would end too early.
_UNSEEN: Schema = {"default": {"observedGeneration": 0}}
_READY = '.status.conditions[?(@.type=="Ready")]'


def documents() -> dict[str, Schema]:
    """Return {file name: CustomResourceDefinition}, named as kubectl names them."""
    kinds = {
        Kind.INFERENCE_POOL: _inference_pool(),
        Kind.MODEL_ROLLOUT: _model_rollout(),
        Kind.ROUTE_TABLE: _route_table(),
    }
    return {f"{GROUP}_{PLURALS[kind]}.yaml": document for kind, document in kinds.items()}


def _inference_pool() -> Schema:
    schema = _object(
        "A set of Triton workers that serve the same models, behind the routers.",
        spec=structural(InferencePoolSpec, defaults=True),
        status=structural(InferencePoolStatus, defaults=False) | _UNSEEN,
    )
    version: Schema = {
        "additionalPrinterColumns": _pool_columns(),
        "schema": {"openAPIV3Schema": schema | on(POOL_NAME)},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    }
    return _definition(Kind.INFERENCE_POOL, version)


def _model_rollout() -> Schema:
    schema = _object(
        "How a changed template takes over the requests of an InferencePool, step by step.",
        spec=structural(ModelRolloutSpec, defaults=True),
        status=structural(ModelRolloutStatus, defaults=False) | _UNSEEN,
    )
    columns = [
        _column("Pool", "string", ".spec.poolRef.name"),
        _column("Phase", "string", ".status.phase"),
        _column("Step", "integer", ".status.currentStepIndex", "steps done"),
        _column("Of", "integer", ".status.stepCount"),
        _column("Weight", "integer", ".status.verifiedWeight", "percent, acknowledged by routers"),
        _column("Ready", "string", f"{_READY}.status"),
        _column("Reason", "string", f"{_READY}.reason"),
        _column("Stable", "string", ".status.stableRevision", priority=1),
        _column("Canary", "string", ".status.canaryRevision", priority=1),
        _column("Message", "string", ".status.message", priority=1),
        _column("Age", "date", ".metadata.creationTimestamp"),
    ]
    version: Schema = {
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return _definition(Kind.MODEL_ROLLOUT, version)


def _route_table() -> Schema:
    schema = _object(
        "What the operator publishes of one pool for the routers. Not for editing by hand: the"
        " operator overwrites it.",
        spec=structural(RouteTableSpec, defaults=False),
    )
    columns = [
        _column("Role", "string", ".spec.role"),
        _column("Sequence", "integer", ".spec.sequence"),
        _column("Published", "date", ".spec.publishedAt", "last change, not the last sign of life"),
        _column("Age", "date", ".metadata.creationTimestamp"),
    ]
    version: Schema = {
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    return _definition(Kind.ROUTE_TABLE, version)


def _pool_columns() -> Sequence[Schema]:
    return [
        _column("Ready", "string", f"{_READY}.status"),
        _column("Reason", "string", f"{_READY}.reason"),
        _column("Desired", "integer", ".status.desiredReplicas"),
        _column("Current", "integer", ".status.replicas"),
        _column("Available", "integer", ".status.readyReplicas"),
        _column("Queue", "number", ".status.queueDepth", "waiting requests per Ready worker"),
        _column("P95", "number", ".status.p95Milliseconds", "milliseconds"),
        _column("Stable", "string", ".status.stableRevision", priority=1),
        _column("Cost/h", "string", ".status.costPerHour", priority=1),
        _column("Age", "date", ".metadata.creationTimestamp"),
    ]


def _column(name: str, kind: str, path: str, description: str = "", priority: int = 0) -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    column |= {"description": description} if description else {}
    return column | ({"priority": priority} if priority else {})


def _object(description: str, **parts: Schema) -> Schema:
    return {
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            **parts,
        },
    }


def _definition(kind: Kind, version: Schema) -> Schema:
    plural = PLURALS[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            # Uninstalling the chart must not delete every pool of the cluster.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": str(kind),
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": str(kind).lower(),
                "shortNames": [SHORT_NAMES[kind]],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [{"name": VERSION, "served": True, "storage": True, **version}],
        },
    }
