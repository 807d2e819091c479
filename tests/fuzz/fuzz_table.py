"""Route tables: what is read is applied in order, whole, and never breaks a pick.

Input: JSON as it is, or, from another first byte than a bracket, a history: documents made of a
good one by changes, offered to a book and a dispatcher one after another.
"""

import json
import random

from pydantic import ValidationError

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import (
    PoolIdentity,
    RoutedWorker,
    RouteTableSpec,
    Served,
    digest,
    split,
)
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.faults import Outcome
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Ending
from tidegate_router.core.table import TableBook, Verdict

MAX_BYTES = 2048
_VALUES = (
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 0.5, 1e-300, 1e300, float("inf"),
    float("nan"), "", "r1", "r2", "m", "1", "Part", "Index", "Critical", "\0", "x" * 120, [], {},
    [None], [[]], {"": ""}, 65535, 65536, "u2", "10.0.0.2", "::1", "%", "a b",
)  # fmt: skip


def _worker(name: str, revision: str) -> RoutedWorker:
    served = Served(revision=revision, model="m", limit=2)
    return RoutedWorker(
        id=name, name=name, address="10.0.0.1", revision=revision, serves=[served], score=0.5,
        score_age_s=1.0,
    )  # fmt: skip


_TABLE = RouteTableSpec(
    pool=PoolIdentity(namespace="ns", name="p", uid="u1"),
    sequence=7,
    weights=[RevisionWeight(revision="r1", weight=90), RevisionWeight(revision="r2", weight=10)],
    workers=[_worker("w1", "r1"), _worker("w2", "r2")],
)
_INDEX, _PARTS = split(_TABLE, 300)
_DOCUMENTS = [_TABLE.to_wire(), _INDEX.to_wire(), *(one.to_wire() for one in _PARTS.values())]
_NAMES = ["p", "p", *_PARTS]
_FULL = _DOCUMENTS[0] | {
    "pins": [{"revision": "r2", "headers": {"x-try": "1"}}],
    "mirror": {"revision": "r2", "percent": 10},
    "guards": [{"revision": "r2", "minRequests": 5, "intervalSeconds": 5, "maxP95Seconds": 1}],
    "routers": [{"instance": "me", "share": 0.5}],
    "publishedAt": "2026-01-01T00:00:00Z",
}
_DOCUMENTS.append(_FULL)
_NAMES.append("p")
SEEDS = [
    *(json.dumps(one).encode() for one in _DOCUMENTS),
    json.dumps(_FULL).replace("0.5", "1e999").encode(),
    *(bytes([kind, *range(step, 60, step)]) for kind in range(6) for step in (1, 3, 7)),
]


def check(data: bytes) -> None:
    """Raise where a table is applied that should not be, or breaks what it is applied to."""
    book, dispatcher = TableBook(), Dispatcher("me", random.Random(1).random)
    if data[:1] in {b"{", b"["}:
        try:
            spec = RouteTableSpec.model_validate_json(data)
        except ValidationError:
            return
        _check_wire(spec)
        _offer(book, dispatcher, ("ns", "p"), spec, 1000.0)
        return
    now_s, at = 1000.0, 1
    for turn in range(4):
        if at >= len(data):
            break
        kind = data[at] % len(_DOCUMENTS)
        now_s += data[at] / 4
        document, used = _changed(_DOCUMENTS[kind], data[at + 1 :])
        at += 1 + used
        try:
            spec = RouteTableSpec.model_validate(document)
        except ValidationError:
            continue
        if not turn:
            _check_wire(spec)
        _offer(book, dispatcher, ("ns", _NAMES[kind]), spec, now_s)


def _copied(value: object) -> object:
    """Return a copy of JSON; copy.deepcopy takes most of a run's time."""
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


def _changed(document: dict[str, object], data: bytes) -> tuple[dict[str, object], int]:
    """Return a document with up to four changes, and how many bytes said so."""
    changed, at = _copied(document), 1
    for _ in range(data[0] % 5 if data else 0):
        place: object = changed
        while at < len(data) and isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[data[at] % len(keys)]
            at += 1
            if isinstance(place[key], dict | list) and place[key] and data[at - 1] < 224:
                place = place[key]
                continue
            if at < len(data):
                _change(place, key, data[at])
                at += 1
            break
    return changed, at


def _change(place: object, key: object, how: int) -> None:
    if how < 16 and isinstance(place, list):
        place.append(_copied(place[key]))
    elif how < 16:
        del place[key]
    elif how < 64 and isinstance(place[key], int):
        place[key] += how - 40
    else:
        place[key] = _copied(_VALUES[how % len(_VALUES)])


def _check_wire(spec: RouteTableSpec) -> None:
    """What is written again is read as the same, and cut in parts it is still whole."""
    again = RouteTableSpec.model_validate_json(json.dumps(spec.to_wire()))
    assert digest(again) == digest(spec), "another table after a round trip"


def _offer(
    book: TableBook,
    dispatcher: Dispatcher,
    key: tuple[str, str],
    spec: RouteTableSpec,
    now_s: float,
) -> None:
    before = dict(book.applied)
    verdict = book.judge(spec)
    changed = book.offer(key, spec)
    for uid, table in book.applied.items():
        assert table.role == "Index", "a part was applied"
        assert not table.parts, "an incomplete table was applied"
        old = before.get(uid)
        assert old is None or table.sequence >= old.sequence, "a lower sequence was applied"
        assert (table is not old) <= (uid in changed), "a change was not told"
    if spec.role == "Index" and verdict in {Verdict.LOWER, Verdict.SAME}:
        assert book.applied[spec.pool.uid] is before[spec.pool.uid], "refused, yet applied"
    dispatcher.proof.sequence_advanced(now_s)
    dispatcher.apply(book.applied, changed, now_s)
    dispatcher.tick(now_s)
    for pool in {table.pool.name: table.pool for table in book.applied.values()}.values():
        name = (pool.namespace, pool.name)  # a pool that was made anew has the old one's
        same = [one for one in book.applied.values() if (one.pool.namespace, one.pool.name) == name]
        _ask(dispatcher, same, "/".join(name), now_s)


def _ask(dispatcher: Dispatcher, tables: list[RouteTableSpec], pool: str, now_s: float) -> None:
    """A request goes to a worker of its pool that serves its model, or is refused."""
    route = dispatcher.plan(Ask(model="m", pool=pool), now_s)
    if isinstance(route, Refusal):
        return
    found = dispatcher.next_attempt(route, now_s)
    if not isinstance(found, Attempt):
        return
    most_s = max(table.policy.timeout_s for table in tables)
    assert 0 < found.timeout_s <= most_s, "a timeout that is none"
    workers = [one for table in tables for one in table.workers if not one.draining]
    served = [
        served
        for one in workers
        if found.worker_name in {one.name, one.id}
        for served in one.serves
    ]
    assert any(one.model == "m" and one.revision == found.revision for one in served), "elsewhere"
    ending = Ending(outcome=Outcome.OK, latency_s=0.01)
    dispatcher.settle(route, found, ending, now_s)
    dispatcher.release(found)
    dispatcher.finish(route, now_s)
