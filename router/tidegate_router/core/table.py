"""Which RouteTables a router applies (router.md section 4).

Tables are ordered by (pool UID, sequence). A lower sequence is refused, unless it is still what
the API server has RESET_AFTER_S after a re-list showed it: then the cluster was restored from a
backup and the higher one will not come back. A table in parts is applied when all are there with
the digests that the index names.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tidegate_api.routetable import RouteTableSpec, assemble

RESET_AFTER_S = 30.0
Key = tuple[str, str]  # namespace, name of the RouteTable object


class Verdict(StrEnum):
    """What became of a document."""

    APPLIED = "applied"
    SAME = "same"  # this sequence is applied already
    LOWER = "lower"  # refused: an older sequence of the same pool
    INCOMPLETE = "incomplete"  # a part is missing or has another digest; the last good one stays
    PART = "part"  # kept for its index
    RESET = "sequence_reset"  # a lower sequence, accepted after RESET_AFTER_S


@dataclass(slots=True)
class _Lower:
    spec: RouteTableSpec
    listed_s: float | None  # when a re-list first showed it; None: only a watch event did


@dataclass(slots=True)
class TableBook:
    """The applied tables by pool UID, and what waits to be one.

    Each method returns the UIDs of pools whose applied table changed or went away.
    """

    applied: dict[str, RouteTableSpec] = field(default_factory=dict)
    resets: int = 0
    refused: int = 0
    _objects: dict[Key, RouteTableSpec] = field(default_factory=dict)
    _lower: dict[str, _Lower] = field(default_factory=dict)

    def offer(self, key: Key, spec: RouteTableSpec) -> set[str]:
        """Take a document from a watch event."""
        before = self._objects.get(key)
        self._objects[key] = spec
        if spec.role == "Part":
            return self._try_waiting(key[0])
        gone = self._forget(before) if before and before.pool.uid != spec.pool.uid else set()
        return gone | self._apply(spec, listed_s=None)

    def withdraw(self, key: Key) -> set[str]:
        """Take a deletion: an index takes its pool along, a part changes nothing."""
        return self._forget(self._objects.pop(key, None))

    def relist(
        self,
        objects: Mapping[Key, RouteTableSpec],
        now_s: float,
        unreadable: Collection[Key] = (),
    ) -> set[str]:
        """Replace everything by what a list returned.

        A pool whose table is there, but `unreadable` for this version, keeps its last good one.
        """
        self._objects = dict(objects)
        indexes = [(key, spec) for key, spec in objects.items() if spec.role == "Index"]
        living = {spec.pool.uid for _, spec in indexes}
        living |= {
            uid
            for uid, table in self.applied.items()
            if (table.pool.namespace, table.pool.name) in unreadable
        }
        changed = {uid for uid in self.applied if uid not in living}
        for uid in changed:
            del self.applied[uid]
        self._lower = {uid: low for uid, low in self._lower.items() if uid in living}
        for _, spec in indexes:
            changed |= self._apply(spec, listed_s=now_s)
        return changed

    def tick(self, now_s: float) -> set[str]:
        """Accept lower sequences that stayed for RESET_AFTER_S after a re-list."""
        due = [
            uid
            for uid, low in self._lower.items()
            if low.listed_s is not None and now_s - low.listed_s >= RESET_AFTER_S
        ]
        changed: set[str] = set()
        for uid in due:
            whole = self._whole(self._lower[uid].spec)
            if whole is not None:
                del self._lower[uid]
                self.applied[uid] = whole
                self.resets += 1
                changed.add(uid)
        return changed

    def restore(self, tables: Iterable[RouteTableSpec]) -> set[str]:
        """Start from whole tables of a snapshot or a routes file."""
        self.applied = {table.pool.uid: table for table in tables}
        return set(self.applied)

    def judge(self, spec: RouteTableSpec) -> Verdict:
        """Say what would become of an index, without doing it."""
        current = self.applied.get(spec.pool.uid)
        if current is not None and spec.sequence < current.sequence:
            return Verdict.LOWER
        if current is not None and spec.sequence == current.sequence:
            return Verdict.SAME
        return Verdict.INCOMPLETE if self._whole(spec) is None else Verdict.APPLIED

    def _apply(self, spec: RouteTableSpec, listed_s: float | None) -> set[str]:
        uid = spec.pool.uid
        verdict = self.judge(spec)
        if verdict is Verdict.LOWER:
            known = self._lower.get(uid)
            first_s = known.listed_s if known is not None else None
            self._lower[uid] = _Lower(spec, first_s if first_s is not None else listed_s)
            self.refused += 1
            return set()
        self._lower.pop(uid, None)
        whole = self._whole(spec) if verdict is Verdict.APPLIED else None
        if whole is None:
            return set()
        self.applied[uid] = whole
        return {uid}

    def _try_waiting(self, namespace: str) -> set[str]:
        """A part came: apply the indexes of its namespace that waited for it."""
        changed: set[str] = set()
        for (place, _), spec in list(self._objects.items()):
            if place == namespace and spec.role == "Index" and spec.parts:
                changed |= self._apply(spec, listed_s=None)
        return changed

    def _whole(self, spec: RouteTableSpec) -> RouteTableSpec | None:
        if not spec.parts:
            return spec
        parts = {
            name: part
            for (namespace, name), part in self._objects.items()
            if namespace == spec.pool.namespace and part.role == "Part"
        }
        return assemble(spec, parts)

    def _forget(self, spec: RouteTableSpec | None) -> set[str]:
        if spec is None or spec.role == "Part":
            return set()
        self._lower.pop(spec.pool.uid, None)
        return {spec.pool.uid} if self.applied.pop(spec.pool.uid, None) else set()
