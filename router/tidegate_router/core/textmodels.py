"""Which models the text APIs offer, and which one a request means that names none."""

import re
from datetime import datetime

from tidegate_api.names import DroppedReason
from tidegate_api.routetable import RouteTableSpec
from tidegate_router.core.lookup import NameIndex, full_name
from tidegate_router.core.openai import MODEL_PATTERN, ModelCard, ModelList
from tidegate_router.core.pools import PoolView
from tidegate_router.core.refusal import Refusal

_NAME = re.compile(MODEL_PATTERN)
Pools = dict[str, PoolView]  # by UID


def listed(names: NameIndex, pools: Pools, pool: str, *, bare_names: bool) -> ModelList | Refusal:
    """Return the text models of one pool, or those that a bare name reaches, in order of name."""
    if pool and pool not in names.pools:
        return Refusal(DroppedReason.UNKNOWN_POOL, f"there is no pool '{pool}'")
    owners = _owners(names, pools, pool, bare_names=bare_names)
    return ModelList(
        data=[
            ModelCard(
                id=model,
                created=_unix_s(table.pool.created_at),
                owned_by=full_name(table.pool),
            )
            for model, table in sorted(owners.items())
        ]
    )


def _owners(
    names: NameIndex, pools: Pools, pool: str, *, bare_names: bool
) -> dict[str, RouteTableSpec]:
    """Return the table that answers for each text model."""
    if pool:
        uids = [names.pools.get(pool, "")]
        found = {model: uid for uid in uids for model in names.served.get(uid, ())}
    else:
        found = {model: uids[0] for model, uids in names.models.items()} if bare_names else {}
    return {
        model: pools[uid].table
        for model, uid in found.items()
        if uid in pools and _is_text(pools[uid].table, model)
    }


def _is_text(table: RouteTableSpec, model: str) -> bool:
    return any(
        served.traits.text
        for worker in table.workers
        for served in worker.serves
        if served.model == model
    )


def chosen(
    names: NameIndex, pools: Pools, pool: str, given: str, *, bare_names: bool
) -> str | Refusal:
    """Return the model that is meant: the one that is given, else the only text model."""
    if given:
        if _NAME.fullmatch(given):
            return given
        return Refusal(DroppedReason.BAD_REQUEST, "model: this is no model's name")
    found = _owners(names, pools, pool, bare_names=bare_names)
    if len(found) == 1:
        return next(iter(found))
    if not found:
        return Refusal(DroppedReason.UNKNOWN_MODEL, "model: there is no text model here")
    text = f"model: name one of the {len(found)} text models, see GET /v1/models"
    return Refusal(DroppedReason.BAD_REQUEST, text)


def _unix_s(stamp: str) -> int:
    """Return an RFC 3339 time in Unix seconds; 0 for none."""
    try:
        return max(0, int(datetime.fromisoformat(stamp).timestamp()))
    except ValueError:
        return 0
