"""What EndpointSlices say over a table (router.md section 2, operator.md section 8).

They work while the operator is dead: a worker that terminates, or that left its Service, gets no
new request; one that serves but that no table lists for 10 s is used with a neutral score.
A pool without any slice (a routes file, a table that came first) is left to its table.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from tidegate_api.routetable import Ports, RoutedWorker, RouteTableSpec

GRACE_S = 10.0  # slices may follow a table, or a table the slices, by this much
Pool = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint of a worker set's Service. `uid` is the pod's."""

    uid: str
    name: str
    address: str
    revision: str
    accelerator: str
    serving: bool
    terminating: bool
    ports: Ports = field(default_factory=Ports)


@dataclass(slots=True)
class EndpointBook:
    """Endpoints per pool, and when each pod was first seen in slices or table."""

    _pools: dict[Pool, dict[str, Endpoint]] = field(default_factory=dict)
    _listed_s: dict[str, float] = field(default_factory=dict)  # pod UID: first in a slice
    _tabled_s: dict[str, float] = field(default_factory=dict)  # pod UID: first in a table

    def replace(self, pool: Pool, endpoints: Iterable[Endpoint], now_s: float) -> None:
        """Take all endpoints of a pool; none at all means that its slices are gone."""
        fresh = {endpoint.uid: endpoint for endpoint in endpoints}
        for uid, endpoint in fresh.items():
            if endpoint.serving and not endpoint.terminating:
                self._listed_s.setdefault(uid, now_s)
        self._pools[pool] = fresh
        if not fresh:
            del self._pools[pool]

    def note_table(self, table: RouteTableSpec, now_s: float) -> None:
        """Remember when each worker was first in a table."""
        for worker in table.workers:
            self._tabled_s.setdefault(worker.id, now_s)

    def forget_except(self, living: Collection[str]) -> None:
        """Drop what is known of pods that neither tables nor slices have any more."""
        kept = set(living) | self.pods()
        self._listed_s = _only(self._listed_s, kept)
        self._tabled_s = _only(self._tabled_s, kept)

    def pods(self) -> set[str]:
        """Return the UIDs of all pods in slices."""
        return {uid for pods in self._pools.values() for uid in pods}

    def pools(self) -> set[Pool]:
        """Return the pools that have endpoints."""
        return set(self._pools)

    def usable(
        self, pool: Pool, table: RouteTableSpec, now_s: float
    ) -> tuple[list[RoutedWorker], list[RoutedWorker]]:
        """Return who may get new requests as far as table and slices say, and who leaves."""
        sliced = pool in self._pools
        staying: list[RoutedWorker] = []
        leaving: list[RoutedWorker] = []
        for worker in table.workers:
            if not worker.address:
                continue
            if worker.draining or (sliced and self.gone(pool, worker, now_s)):
                leaving.append(worker)
            else:
                staying.append(worker)
        return staying + self.unlisted(pool, table, now_s), leaving

    def gone(self, pool: Pool, worker: RoutedWorker, now_s: float) -> bool:
        """Whether the slices forbid new requests to a worker of the table."""
        endpoints = self._pools.get(pool)
        if endpoints is None:
            return False
        endpoint = endpoints.get(worker.id)
        if endpoint is not None:
            return endpoint.terminating
        was_listed = worker.id in self._listed_s
        return was_listed or now_s - self._tabled_s.get(worker.id, now_s) > GRACE_S

    def unlisted(self, pool: Pool, table: RouteTableSpec, now_s: float) -> list[RoutedWorker]:
        """Return workers that serve for 10 s without being in the table.

        What they serve is what that worker of their revision serves which serves least (a second
        revision may not have reached all of them); without one they are left alone. They have no
        score, so they count as the mean.
        """
        if pool not in self._pools:
            return []
        known = {worker.id for worker in table.workers}
        peers: dict[str, RoutedWorker] = {}
        for worker in sorted(table.workers, key=lambda one: len(one.serves), reverse=True):
            peers[worker.revision] = worker  # the last: the one that serves least
        return [
            _stand_in(endpoint, peers[endpoint.revision])
            for uid, endpoint in self._pools.get(pool, {}).items()
            if uid not in known
            and endpoint.revision in peers
            and endpoint.serving
            and not endpoint.terminating
            and now_s - self._listed_s.get(uid, now_s) >= GRACE_S
        ]


def _stand_in(endpoint: Endpoint, peer: RoutedWorker) -> RoutedWorker:
    return RoutedWorker(
        id=endpoint.uid,
        name=endpoint.name,
        address=endpoint.address,
        ports=endpoint.ports,
        revision=endpoint.revision,
        accelerator=endpoint.accelerator,
        serves=peer.serves,
    )


def _only(times_s: Mapping[str, float], kept: Collection[str]) -> dict[str, float]:
    return {uid: time_s for uid, time_s in times_s.items() if uid in kept}
