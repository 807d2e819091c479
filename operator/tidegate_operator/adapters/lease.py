"""A Lease held by one process: operator.md section 10, docs/adr/0004-lease.md.

Times are of the loop's monotonic clock; the wall clock only goes into the object for people.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate_api.template import JsonObject
from tidegate_operator.adapters.client import (
    ApiError,
    ConflictError,
    KubeClient,
    NotFoundError,
    Resource,
)

_log = logging.getLogger(__name__)
LEASES = Resource("coordination.k8s.io/v1", "Lease", "leases")


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds that a Lease lasts, that its holder may fail to renew, and between two tries."""

    duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_s: float = 2.0


class LostLeaseError(RuntimeError):
    """The Lease could not be renewed in time, or somebody else holds it: stop at once."""


class Lease:
    """Acquire, keep, release. `held` says whether writing is still allowed."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
    ) -> None:
        self._client = client
        self._path = LEASES.path(namespace)
        self._name = name
        self._identity = identity
        self._times = times or LeaseTimes()
        self._renewed_s: float | None = None
        self._seen: tuple[str, str, float] | None = None  # holder, renewTime, first seen at

    @property
    def held(self) -> bool:
        """Whether the last renewal is younger than the renew deadline."""
        return (
            self._renewed_s is not None
            and _now_s() - self._renewed_s < self._times.renew_deadline_s
        )

    async def acquire(self) -> None:
        """Return when this process holds the Lease; tries for ever."""
        while True:
            if await self._attempt():
                _log.info("acquired lease %s as %s", self._name, self._identity)
                return
            await asyncio.sleep(self._times.retry_s)

    async def keep(self) -> None:
        """Renew until cancelled; raises LostLeaseError."""
        while True:
            await asyncio.sleep(self._times.retry_s)
            if not await self._attempt() and self._renewed_s is None:
                raise LostLeaseError(f"lease {self._name} is held by another")
            if not self.held:
                raise LostLeaseError(f"lease {self._name} was not renewed in time")

    async def release(self) -> None:
        """Let the next one in at once; best effort."""
        if not self.held:
            return
        try:
            lease = await self._client.request("GET", f"{self._path}/{self._name}")
            spec = _spec(lease)
            if spec.get("holderIdentity") == self._identity:
                spec |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._put(lease, spec)
        except ApiError as error:
            _log.warning("lease %s was not released: %s", self._name, error)
        self._renewed_s = None

    async def _attempt(self) -> bool:
        """Try once to get or renew; True when held now. Connection errors leave things open."""
        began_s = _now_s()
        try:
            lease = await self._client.request("GET", f"{self._path}/{self._name}")
            if not self._free(_spec(lease)):
                self._renewed_s = None
                return False
            await self._put(lease, self._claim(_spec(lease)))
        except NotFoundError:
            if not await self._create():
                return False
        except ConflictError:
            return False
        except ApiError as error:
            _log.warning("lease %s: %s", self._name, error)
            return False
        self._renewed_s = began_s
        return True

    async def _create(self) -> bool:
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name},
            "spec": self._claim({}),
        }
        try:
            await self._client.request("POST", self._path, body=body)
        except ApiError as error:
            _log.warning("lease %s was not created: %s", self._name, error)
            return False
        return True

    async def _put(self, lease: JsonObject, spec: JsonObject) -> None:
        await self._client.request(
            "PUT", f"{self._path}/{self._name}", body={**lease, "spec": spec}
        )

    def _free(self, spec: JsonObject) -> bool:
        """Whether it is ours, released, or unchanged for its duration by our own clock."""
        holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
        if holder in {"", self._identity}:
            return True
        if self._seen is None or self._seen[:2] != (holder, renewed):
            self._seen = (holder, renewed, _now_s())
        duration_s = float(str(spec.get("leaseDurationSeconds") or self._times.duration_s))
        return _now_s() - self._seen[2] > duration_s

    def _claim(self, spec: JsonObject) -> JsonObject:
        now = micro_time()
        ours = spec.get("holderIdentity") == self._identity
        transitions = int(str(spec.get("leaseTransitions") or 0))
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration_s),
            "renewTime": now,
            "acquireTime": spec.get("acquireTime", now) if ours else now,
            "leaseTransitions": transitions if ours else transitions + 1,
        }


async def touch(
    client: KubeClient, namespace: str, name: str, identity: str, annotations: Mapping[str, str]
) -> None:
    """Renew a Lease that only dates things, by server-side apply; raises ApiError."""
    body = {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"name": name, "annotations": dict(annotations)},
        "spec": {"holderIdentity": identity, "renewTime": micro_time(), "leaseDurationSeconds": 15},
    }
    await client.request(
        "PATCH",
        f"{LEASES.path(namespace)}/{name}",
        query={"fieldManager": "tidegate-operator", "force": "true"},
        body=body,
        content_type="application/apply-patch+yaml",
    )


def micro_time() -> str:
    """Return now as a Kubernetes MicroTime."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _spec(lease: JsonObject) -> JsonObject:
    spec = lease.get("spec")
    return spec if isinstance(spec, dict) else {}


def _now_s() -> float:
    return asyncio.get_running_loop().time()
