"""A template edit under load of real requests loses none of at least 10 000 (tier K)."""

import asyncio
import json
import time
from collections import Counter

import aiohttp
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

REQUESTS = 10_000
BODY = json.dumps(
    {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
)


class Load:
    """A closed loop of clients with its own log: (status or error, revision) per request."""

    def __init__(self, url: str, pool: str) -> None:
        self.url, self.headers = url, {"x-tidegate-pool": pool}
        self.log: list[tuple[str, str]] = []
        self.stop = asyncio.Event()

    async def run(self, clients: int) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(session))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not (self.stop.is_set() and len(self.log) >= REQUESTS):
            self.log.append(await self._request(session))

    async def _request(self, session: aiohttp.ClientSession) -> tuple[str, str]:
        try:
            async with session.post(self.url, data=BODY, headers=self.headers) as answer:
                body = await answer.json()
                good = answer.status == 200 and body["outputs"][0]["data"] == [1.0, 2.0]
                what = "ok" if good else f"{answer.status} {body}"
                return what, answer.headers.get("x-tidegate-revision", "")
        except (aiohttp.ClientError, TimeoutError) as error:
            return repr(error), ""


async def test_two_template_edits_under_load_lose_nothing(echo, router):
    load = Load(f"http://{router.http}/v2/models/echo/infer", f"{echo.namespace}/echo")
    first = status(echo)["stableRevision"]
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(clients=8))
        try:
            second = await asyncio.to_thread(edit, echo, "2", first)
            third = await asyncio.to_thread(edit, echo, "3", second)
        finally:
            load.stop.set()
    outcomes = Counter(what for what, _ in load.log)
    assert outcomes["ok"] >= REQUESTS
    assert set(outcomes) == {"ok"}, outcomes
    assert {revision for _, revision in load.log} == {first, second, third}
    assert len({first, second, third}) == 3


def edit(echo, delay_ms: str, before: str) -> str:
    """Change the template; return the revision that serves alone afterwards."""
    patch = [{"op": "replace", "path": "/spec/template/pod/env/0/value", "value": delay_ms}]
    pool = "inferencepools.tidegate.dev/echo"
    echo.kubectl("patch", pool, "--type=json", "-p", json.dumps(patch))
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        seen = status(echo)
        revisions = seen.get("revisions", [])
        if seen["stableRevision"] != before and len(revisions) == 1:
            return seen["stableRevision"]
        time.sleep(0.3)
    raise TimeoutError(json.dumps(status(echo), indent=1))


def status(echo) -> dict:
    return echo.get("inferencepools.tidegate.dev/echo")["status"]
