"""Every child object of a pool as a whole manifest for server-side apply."""

import json

from tidegate_api import names
from tidegate_api.names import Kind
from tidegate_api.pool import InferencePool
from tidegate_api.routetable import RouteTableSpec
from tidegate_api.template import JsonObject
from tidegate_api.workermodels import MODELS_KEY
from tidegate_operator.core.decision import Manifest
from tidegate_operator.core.identity import (
    models_object_name,
    revision_object_name,
    stable_hash,
)
from tidegate_operator.core.podtemplate import set_labels
from tidegate_operator.core.stored import StoredSet

_PROGRESS_DEADLINE_S = 600


def deployment(
    pool: InferencePool, name: str, stored: StoredSet, replicas: int, *, hosts: str | None = None
) -> Manifest:
    """Return a set's Deployment. Its template never changes, so no strategy ever runs.

    `hosts`: the revision that was promoted inside its workers.
    """
    labels = set_labels(pool, stored.revision, stored.accelerator, name)
    selector = {key: labels[key] for key in (names.LABEL_POOL, names.LABEL_WORKER_SET)}
    annotations = {names.ANNOTATION_RENDERED_HASH: stable_hash(stored.pod_template)}
    if hosts is not None:
        annotations[names.ANNOTATION_HOSTS] = hosts
    spec: JsonObject = {
        "replicas": replicas,
        "revisionHistoryLimit": 0,
        "progressDeadlineSeconds": _PROGRESS_DEADLINE_S,
        "selector": {"matchLabels": selector},
        "template": stored.pod_template,
    }
    return _object(
        pool,
        "apps/v1",
        "Deployment",
        name,
        labels=labels,
        content={"spec": spec},
        annotations=annotations,
    )


def service(pool: InferencePool, name: str, stored: StoredSet) -> Manifest:
    """Return a set's headless Service: routers watch its EndpointSlices.

    publishNotReadyAddresses stays false; the slices list unready pods with ready=false and
    leaving ones with terminating=true all the same.
    """
    labels = set_labels(pool, stored.revision, stored.accelerator, name)
    ports = {
        "http": names.PORT_WORKER_HTTP,
        "grpc": names.PORT_WORKER_GRPC,
        "agent": names.PORT_WORKER_AGENT,
    }
    spec: JsonObject = {
        "clusterIP": "None",
        "selector": {key: labels[key] for key in (names.LABEL_POOL, names.LABEL_WORKER_SET)},
        "ports": [
            {"name": key, "port": port, "targetPort": port, "protocol": "TCP"}
            for key, port in ports.items()
        ],
    }
    return _object(pool, "v1", "Service", name, labels=labels, content={"spec": spec})


def models_config_map(
    pool: InferencePool, name: str, stored: StoredSet, models: object
) -> Manifest:
    """Return what the set's agents shall serve (ADR 0006)."""
    labels = set_labels(pool, stored.revision, stored.accelerator, name)
    text = json.dumps(models, sort_keys=True, indent=1, ensure_ascii=False)
    data: JsonObject = {"data": {MODELS_KEY: text}}
    return _object(pool, "v1", "ConfigMap", models_object_name(name), labels=labels, content=data)


def set_revision(
    pool: InferencePool, name: str, stored: StoredSet, kept: JsonObject, number: int
) -> Manifest:
    """Return the ControllerRevision that keeps a set's rendering.

    `kept` is its data as it is if it exists: it is immutable, and a newer operator might write
    the same content with another field.
    """
    labels = set_labels(pool, stored.revision, stored.accelerator, name)
    body: JsonObject = {"data": kept, "revision": number}
    return _object(pool, "apps/v1", "ControllerRevision", name, labels=labels, content=body)


def pool_revision(
    pool: InferencePool, revision: str, kept: JsonObject, number: int, *, aborted: bool = False
) -> Manifest:
    """Return the ControllerRevision that keeps what the user wrote, and whether it was aborted."""
    labels = {**_pool_labels(pool), names.LABEL_REVISION: revision}
    name = revision_object_name(pool.metadata.name, revision)
    body: JsonObject = {"data": kept, "revision": number}
    return _object(
        pool,
        "apps/v1",
        "ControllerRevision",
        name,
        labels=labels,
        content=body,
        annotations={names.ANNOTATION_ABORTED: "true"} if aborted else None,
    )


def disruption_budget(pool: InferencePool) -> Manifest:
    """Return the pool's PodDisruptionBudget: maxUnavailable never blocks a node drain."""
    spec: JsonObject = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": {names.LABEL_POOL: pool.metadata.name}},
    }
    return _pool_object(pool, "policy/v1", "PodDisruptionBudget", spec)


def network_policy(pool: InferencePool) -> Manifest:
    """Return who may reach workers: routers the inference ports, operators the agent.

    A chart cannot put it into users' namespaces. Kubelet probes come from the node and pass.
    """
    spec: JsonObject = {
        "podSelector": {"matchLabels": {names.LABEL_POOL: pool.metadata.name}},
        "policyTypes": ["Ingress"],
        "ingress": [
            _ingress(names.LABEL_ROUTER, names.PORT_WORKER_HTTP, names.PORT_WORKER_GRPC),
            _ingress(names.LABEL_OPERATOR, names.PORT_WORKER_AGENT),
        ],
    }
    return _pool_object(pool, "networking.k8s.io/v1", "NetworkPolicy", spec)


def _ingress(label: str, *ports: int) -> JsonObject:
    exists: JsonObject = {"matchExpressions": [{"key": label, "operator": "Exists"}]}
    return {
        "from": [{"namespaceSelector": {}, "podSelector": exists}],
        "ports": [{"port": port, "protocol": "TCP"} for port in ports],
    }


def route_table(pool: InferencePool, name: str, spec: RouteTableSpec) -> Manifest:
    """Return a RouteTable object: the index bears the pool's name, parts bear their digest."""
    return _object(
        pool,
        names.API_VERSION,
        Kind.ROUTE_TABLE,
        name,
        labels=_pool_labels(pool),
        content={"spec": spec.to_wire()},
    )


def _pool_labels(pool: InferencePool) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "tidegate-pool",
        "app.kubernetes.io/managed-by": names.FIELD_MANAGER,
        names.LABEL_POOL: pool.metadata.name,
    }


def _pool_object(pool: InferencePool, api: str, kind: str, spec: JsonObject) -> Manifest:
    return _object(
        pool, api, kind, pool.metadata.name, labels=_pool_labels(pool), content={"spec": spec}
    )


def _object(
    pool: InferencePool,
    api: str,
    kind: str,
    name: str,
    *,
    labels: dict[str, str],
    content: JsonObject,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    owner: JsonObject = {
        "apiVersion": names.API_VERSION,
        "kind": Kind.INFERENCE_POOL.value,
        "name": pool.metadata.name,
        "uid": pool.metadata.uid,
        "controller": True,
        # With true, deleting a pool in the foreground would wait for every worker's drain.
        "blockOwnerDeletion": False,
    }
    metadata: JsonObject = {
        "name": name,
        "namespace": pool.metadata.namespace,
        "labels": labels,
        "ownerReferences": [owner],
    }
    if annotations:
        metadata["annotations"] = annotations
    body: JsonObject = {"apiVersion": api, "kind": str(kind), "metadata": metadata, **content}
    return Manifest(body, str(kind), name)
