"""Names of revisions and worker sets, derived from what the user wrote.

A revision is the hash of spec.template as written, defaults excluded, so an upgrade of the
operator or of a CRD default makes none. A worker set is a revision on one class: the hash adds
what of the class shapes its pods. The class's replicas and cost do not.
"""

import hashlib
import json
from collections.abc import Mapping

from tidegate_api.template import JsonObject

_CLASS_PARTS = ("name", "kind", "resources", "nodeSelector", "models")


def stable_hash(value: object, collisions: int = 0) -> str:
    """Return 8 hex digits of SHA-256 over sorted, compact JSON; `collisions` salts it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    salt = f"{collisions}:" if collisions else ""
    return hashlib.sha256((salt + text).encode()).hexdigest()[:8]


def revision_hash(template: Mapping[str, object], collisions: int) -> str:
    """Return the revision that a template as written makes."""
    return stable_hash(dict(template), collisions)


def set_identity(
    revision: str, accelerator: Mapping[str, object], restarted_at: str = ""
) -> JsonObject:
    """Return what makes a worker set what it is; two sets are one if these are equal.

    `restarted_at`: the same revision is rendered anew at each restart that a user asks for.
    """
    parts = {key: accelerator[key] for key in _CLASS_PARTS if accelerator.get(key) is not None}
    restart: JsonObject = {"restartedAt": restarted_at} if restarted_at else {}
    return {"revision": revision, "class": parts, **restart}


def set_name(pool: str, class_name: str, identity: JsonObject, collisions: int) -> str:
    """Return the name of a set's Deployment, Service and ControllerRevision (<= 61)."""
    return f"{pool}-{class_name}-{stable_hash(identity, collisions)}"


def revision_object_name(pool: str, revision: str) -> str:
    """Return the name of a revision's ControllerRevision."""
    return f"{pool}-{revision}"


def models_object_name(set_object_name: str) -> str:
    """Return the name of a set's models ConfigMap."""
    return f"{set_object_name}-models"
