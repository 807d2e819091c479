"""Which pool a request belongs to (router.md section 2).

A named pool ("namespace/name") is taken as it is. A bare model name belongs to the oldest pool
that serves it (createdAt, namespace, name), for as long as that pool lives.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tidegate_api.names import DroppedReason
from tidegate_api.routetable import PoolIdentity, RouteTableSpec
from tidegate_router.core.refusal import Refusal


@dataclass(frozen=True, slots=True)
class NameIndex:
    """Pool UIDs by full name and by the models that they serve, oldest first."""

    pools: dict[str, str] = field(default_factory=dict)
    models: dict[str, tuple[str, ...]] = field(default_factory=dict)
    served: dict[str, frozenset[str]] = field(default_factory=dict)  # UID: models

    def find(self, pool: str, model: str, *, bare_names: bool) -> str | Refusal:
        """Return the UID of the pool that answers for `model`, or why there is none."""
        if pool:
            return self._named(pool, model)
        owners = self.models.get(model, ())
        if owners and bare_names:
            return owners[0]
        if owners:
            text = f"model '{model}': name its pool in header x-tidegate-pool (namespace/name)"
            return Refusal(DroppedReason.UNKNOWN_MODEL, text)
        return Refusal(DroppedReason.UNKNOWN_MODEL, f"no pool serves model '{model}'")

    def _named(self, pool: str, model: str) -> str | Refusal:
        uid = self.pools.get(pool)
        if uid is None:
            text = f"there is no pool '{pool}' (expected namespace/name)"
            return Refusal(DroppedReason.UNKNOWN_POOL, text)
        if model not in self.served[uid]:
            return Refusal(DroppedReason.UNKNOWN_MODEL, f"pool '{pool}' has no model '{model}'")
        return uid


def full_name(pool: PoolIdentity) -> str:
    """Return namespace/name."""
    return f"{pool.namespace}/{pool.name}"


def build(tables: Iterable[RouteTableSpec], before: NameIndex | None = None) -> NameIndex:
    """Index tables. Of two UIDs with one name the newer is meant: the pool was recreated.

    A pool without any worker keeps the models of the index before, or has those that its table
    names: scaled to zero it still owns its names.
    """
    oldest_first = sorted(tables, key=_age_order)
    models: dict[str, list[str]] = {}
    served: dict[str, frozenset[str]] = {}
    for table in oldest_first:
        names = frozenset(item.model for worker in table.workers for item in worker.serves)
        if not names and before is not None:
            names = before.served.get(table.pool.uid, names)
        names = names or frozenset(table.models)
        served[table.pool.uid] = names
        for name in names:
            models.setdefault(name, []).append(table.pool.uid)
    pools = {full_name(table.pool): table.pool.uid for table in oldest_first}
    return NameIndex(pools, {name: tuple(uids) for name, uids in models.items()}, served)


def _age_order(table: RouteTableSpec) -> tuple[str, str, str]:
    return (table.pool.created_at, table.pool.namespace, table.pool.name)
