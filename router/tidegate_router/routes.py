"""Keeps the dispatcher's tables: takes what adapters read, applies what the core accepts."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tidegate_api.routetable import RouteTableSpec
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.endpoints import Endpoint, Pool
from tidegate_router.core.table import Key, TableBook
from tidegate_router.lane import clock

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class RouteKeeper:
    """The one way by which tables, endpoints and signs of life reach the dispatcher.

    `ready`: there are tables to serve from. `synced`: they come from a fresh list, not a snapshot.
    """

    dispatcher: Dispatcher
    book: TableBook = field(default_factory=TableBook)
    ready: bool = False
    synced: bool = False
    changes: int = 0  # grows with each applied change; the snapshot follows it

    def offer(self, key: Key, spec: RouteTableSpec) -> None:
        """A watch event brought a table or a part."""
        self._apply(self.book.offer(key, spec))

    def withdraw(self, key: Key) -> None:
        """A watch event deleted a table or a part."""
        self._apply(self.book.withdraw(key))

    def relist(self, objects: Mapping[Key, RouteTableSpec]) -> None:
        """A list brought everything there is."""
        self._apply(self.book.relist(objects, clock()))
        if not self.synced:
            _log.info("serving %d pools from a fresh list", len(self.book.applied))
        self.ready = self.synced = True

    def restore(self, tables: Iterable[RouteTableSpec], *, synced: bool) -> None:
        """Serve whole tables from a file, dropping what is not among them."""
        before = set(self.book.applied)
        self._apply(before | self.book.restore(tables))
        self.ready, self.synced = True, synced

    def endpoints(self, pool: Pool, endpoints: Iterable[Endpoint]) -> None:
        """All endpoints of a pool, from its EndpointSlices."""
        self.dispatcher.apply_endpoints(pool, endpoints, clock())

    def lease(self, renew_time: str, lag_ms: str) -> None:
        """The Lease of the score loop was read."""
        self.dispatcher.proof.lease_seen(renew_time, lag_ms, clock())

    def tick(self) -> None:
        """Once a second: late sequence resets, and forgetting what is gone."""
        self._apply(self.book.tick(clock()))
        self.dispatcher.tick()

    def _apply(self, changed: set[str]) -> None:
        if not changed:
            return
        now_s = clock()
        if self._advanced(changed):
            self.dispatcher.proof.sequence_advanced(now_s)
        self.dispatcher.apply(self.book.applied, changed, now_s)
        self.changes += 1

    def _advanced(self, changed: set[str]) -> bool:
        """Whether a pool that was known from the API server moved to a higher sequence."""
        pools = self.dispatcher.pools
        return self.synced and any(
            uid in pools
            and uid in self.book.applied
            and self.book.applied[uid].sequence > pools[uid].table.sequence
            for uid in changed
        )
