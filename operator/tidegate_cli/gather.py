"""Reads what commands show of a rollout and its pool into one value."""

import time
from typing import TYPE_CHECKING

from tidegate_api import names
from tidegate_api.names import Kind
from tidegate_api.template import JsonObject
from tidegate_cli.core import snapshot as snapshots
from tidegate_cli.core.documents import text
from tidegate_cli.core.snapshot import Snapshot
from tidegate_cli.errors import NotFoundError

if TYPE_CHECKING:
    from tidegate_cli.kube import Cluster


def look(cluster: "Cluster", name: str) -> Snapshot:
    """Return all there is of a rollout, or of a pool of this name with the rollout it has."""
    rollout = _rollout(cluster, name)
    pool_name = text(rollout, "spec", "poolRef", "name") if rollout else name
    pool = optional(cluster, Kind.INFERENCE_POOL, pool_name)
    if rollout is None and pool is None:
        cluster.get(Kind.MODEL_ROLLOUT, name)
    return _assembled(cluster, pool_name, pool, rollout)


def optional(cluster: "Cluster", kind: Kind, name: str) -> JsonObject | None:
    """Return an object, None if there is none."""
    try:
        return cluster.get(kind, name)
    except NotFoundError:
        return None


def _rollout(cluster: "Cluster", name: str) -> JsonObject | None:
    found = optional(cluster, Kind.MODEL_ROLLOUT, name)
    if found is not None:
        return found
    pool = optional(cluster, Kind.INFERENCE_POOL, name)
    bound = text(pool, "status", "rollout", "name")
    return optional(cluster, Kind.MODEL_ROLLOUT, bound) if bound else None


def _assembled(
    cluster: "Cluster", name: str, pool: JsonObject | None, rollout: JsonObject | None
) -> Snapshot:
    selector = f"{names.LABEL_POOL}={name}"
    table = optional(cluster, Kind.ROUTE_TABLE, name)
    kept = cluster.children("/apis/apps/v1", "controllerrevisions", selector)
    deployments = cluster.children("/apis/apps/v1", "deployments", selector)
    pods = cluster.children("/api/v1", "pods", selector)
    return Snapshot(
        now_s=time.time(),
        rollout=snapshots.read_rollout(rollout) if rollout else None,
        pool=snapshots.read_pool(pool) if pool else None,
        revisions=snapshots.read_revisions(kept),
        sets=snapshots.read_sets(deployments, pods),
        published=snapshots.read_published(table),
    )
