"""What a hundred rollouts at once on a thousand pools cost the operator (tier P, no requests).

Real etcd, API server, operator and three routers as processes; a stub worker per pool and canary.
Writes .bench/rollout-scale.json and ends with one key=value line. POOLS and ROLLOUTS as arguments.
"""

import asyncio
import datetime as dt
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tidegate_e2e.localcluster import binaries
from tidegate_e2e.ptier import api as paths
from tidegate_e2e.ptier import environment
from tidegate_e2e.ptier.api import AWAY, AnswerError, Api
from tidegate_e2e.ptier.control import ControlPlane
from tidegate_e2e.ptier.environment import MODEL, wait
from tidegate_e2e.ptier.processes import Program

ROOT = Path(__file__).parents[2]
NAMESPACE, PAUSE_S, IDLE_S, AT_ONCE = "scale", 5.0, 20.0, 24
LIMIT_S, SETTLE_S = 420.0, 10.0  # SETTLE_S: what a creation leaves to do
POOLS, ROLLOUTS = paths.POOLS.format(NAMESPACE), paths.ROLLOUTS.format(NAMESPACE)
STEPS = [
    {"setWeight": 20}, {"pause": {"duration": f"{PAUSE_S:g}s"}},
    {"setWeight": 50}, {"pause": {"duration": f"{PAUSE_S:g}s"}},
]  # fmt: skip
TICKS = os.sysconf("SC_CLK_TCK")
WRITES = re.compile(
    r'^tidegate_operator_api_requests_total\{.*verb="(POST|PUT|PATCH|DELETE)".*\} ([0-9.e+]+)',
    re.MULTILINE,
)


@dataclass
class Sample:
    """The operator at one moment."""

    at_s: float
    cpu_s: float
    rss_bytes: int
    writes: float

    def since(self, before: "Sample") -> tuple[float, float]:
        """Return (cores used, writes a second) since another moment."""
        seconds = self.at_s - before.at_s
        return (self.cpu_s - before.cpu_s) / seconds, (self.writes - before.writes) / seconds


def usage(pid: int) -> tuple[float, int]:
    """Return a process's CPU seconds and resident bytes (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return (int(fields[11]) + int(fields[12])) / TICKS, pages * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Gauge:
    """Looks at the operator's child once a second."""

    api: Api
    operator: Program
    samples: list[Sample] = field(default_factory=list)

    async def look(self) -> Sample:
        """Return what it costs now."""
        pid = self.operator.child()
        cpu_s, rss_bytes = usage(pid)
        port = self.operator.command[list(self.operator.command).index("--port") + 1]
        async with self.api.session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            writes = sum(float(found[1]) for found in WRITES.findall(await answer.text()))
        return Sample(time.monotonic(), cpu_s, rss_bytes, writes)

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            with suppress(*AWAY):
                self.samples.append(await self.look())
            await asyncio.sleep(1)

    def between(self, from_s: float, to_s: float) -> list[Sample]:
        """Return the samples of a span."""
        return [item for item in self.samples if from_s <= item.at_s <= to_s]


@dataclass
class Weights:
    """When each table first showed each weight of its canary, and when each step began."""

    api: Api
    begun: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    seen: dict[str, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    stable: dict[str, str] = field(default_factory=dict)
    invalid: int = 0

    async def run(self) -> None:
        """Watch every table and every rollout."""
        await asyncio.gather(
            self._follow(paths.TABLES, self._table), self._follow(paths.ROLLOUTS, self._rollout)
        )

    async def _follow(self, path: str, take) -> None:
        while True:
            with suppress(*AWAY):
                async for event in self.api.watch(path.format(NAMESPACE)):
                    take(event["object"])
            await asyncio.sleep(0.1)

    def _table(self, table: dict) -> None:
        pool = table["metadata"]["name"]
        shares = {item["revision"]: item["weight"] for item in table["spec"].get("weights", [])}
        if shares and sum(shares.values()) != 100:
            self.invalid += 1
        known = self.stable.get(pool)
        for revision, weight in shares.items():
            if known and revision != known:
                self.seen[pool].setdefault(weight, time.time())

    def _rollout(self, item: dict) -> None:
        status, name = item.get("status") or {}, item["metadata"]["name"]
        if name in self.stable and status.get("state") == "Holding" and "stepStartedAt" in status:
            at_s = dt.datetime.fromisoformat(status["stepStartedAt"]).timestamp()
            self.begun[name].setdefault(status["currentStepIndex"], at_s)

    def acknowledged_s(self) -> list[float]:
        """Return how long from a table with a new weight to the pause that its proof began."""
        return self._spans(((20, 1), (50, 3)), lambda shown, begun: begun - shown)

    def lags_s(self) -> list[float]:
        """Return how long after the end of a timed pause the next weight was published."""
        return self._spans(((50, 1), (100, 3)), lambda shown, begun: shown - begun - PAUSE_S)

    def _spans(self, pairs, span) -> list[float]:
        return sorted(
            span(self.seen[name][weight], begun[step])
            for name, begun in self.begun.items()
            for weight, step in pairs
            if step in begun and weight in self.seen[name]
        )


def pool(name: str) -> dict:
    """Return a pool of one stub worker."""
    model = {"name": MODEL, "source": {"uri": "file:///opt/models/m"}}
    return {
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "InferencePool",
        "metadata": {"name": name},
        "spec": {
            "template": {"models": [model]}, "accelerators": [{"name": "cpu", "kind": "CPU"}],
            "replicas": 1, "drain": {"timeout": "5s"},
        },
    }  # fmt: skip


def rollout(name: str) -> dict:
    """Return a rollout that goes by time alone."""
    return {
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ModelRollout",
        "metadata": {"name": name},
        "spec": {"poolRef": {"name": name}, "steps": STEPS, "scaleDownDelay": "1s"},
    }  # fmt: skip


async def at_once(calls) -> None:
    """Make requests, AT_ONCE of them in flight."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(call) -> None:
        async with slots:
            for _ in range(5):
                try:
                    return await call()
                except AWAY:
                    await asyncio.sleep(0.5)
            return await call()

    await asyncio.gather(*(one(call) for call in calls))


async def count(api: Api, path: str, passes) -> int:
    """Return how many objects of a list pass."""
    return sum(passes(item.get("status") or {}) for item in await api.items(path))


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of sorted values lie."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


async def create(api: Api, names: list[str], rolled: list[str]) -> float:
    """Create pools and rollouts and wait for all to serve; return the seconds it took."""
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    begun_s, post = time.monotonic(), api.request
    await at_once([lambda n=n: post("POST", POOLS, pool(n)) for n in names])
    await at_once([lambda n=n: post("POST", ROLLOUTS, rollout(n)) for n in rolled])

    async def serving() -> bool:
        ready = await count(api, POOLS, lambda status: status.get("readyReplicas") == 1)
        print(f"    {ready} of {len(names)} pools serve after {time.monotonic() - begun_s:.0f} s")
        return ready == len(names)

    await wait(serving, "all pools serving", LIMIT_S, 3)
    await all_healthy(api, len(rolled), 1)
    return time.monotonic() - begun_s


async def all_healthy(api: Api, wanted: int, generation: int) -> int:
    """Return how many rollouts are over at a generation, once all are or LIMIT_S has passed."""

    def over(status: dict) -> bool:
        known = status.get("observedGeneration") == generation
        same = status.get("stableRevision") == status.get("askedRevision")
        return known and same and status.get("state") == "Healthy"

    async def look() -> bool:
        done = await count(api, ROLLOUTS, over)
        print(f"    {done} of {wanted} rollouts Healthy")
        return done == wanted

    try:
        await wait(look, "all rollouts Healthy", LIMIT_S, 3)
    except TimeoutError as error:
        print(f"    {error}")
    return await count(api, ROLLOUTS, over)


async def roll(api: Api, rolled: list[str], weights: Weights) -> int:
    """Edit all rollouts at once; return how many were promoted."""
    for item in await api.items(ROLLOUTS):
        weights.stable[item["metadata"]["name"]] = item["status"]["stableRevision"]
    edit = {"spec": {"template": {"pod": {"env": [{"name": "V", "value": "2"}]}}}}
    patch = api.request
    await at_once([lambda n=n: patch("PATCH", f"{ROLLOUTS}/{n}", edit) for n in rolled])
    return await all_healthy(api, len(rolled), 2)


async def measure(env, api: Api, pools: int, rollouts: int) -> dict:
    """Create everything, stand idle, edit all rollouts, wait for all promotions."""
    names = [f"p{number}" for number in range(pools)]
    serving_s = await create(api, names, names[:rollouts])
    gauge, weights = Gauge(api, env.operators[0]), Weights(api)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(gauge.run()), group.create_task(weights.run())]
        await asyncio.sleep(SETTLE_S)
        idle_from_s = time.monotonic()
        await asyncio.sleep(IDLE_S)
        idle_to_s = time.monotonic()
        promoted = await roll(api, names[:rollouts], weights)
        rolled_s = time.monotonic()
        for task in tasks:
            task.cancel()
    idle, busy = gauge.between(idle_from_s, idle_to_s), gauge.between(idle_to_s, rolled_s)
    idle_cores, idle_writes = idle[-1].since(idle[0])
    busy_cores, busy_writes = busy[-1].since(busy[0])
    return {
        "tier": "P",
        "pools": pools,
        "rollouts": rollouts,
        "promoted": promoted,
        "servingSeconds": round(serving_s, 1),
        "rolloutSeconds": round(rolled_s - idle_to_s, 1),
        "idleCores": round(idle_cores, 2),
        "idleWritesPerSecond": round(idle_writes, 2),
        "rolloutCores": round(busy_cores, 2),
        "rolloutWritesPerSecond": round(busy_writes, 1),
        "rssMegabytes": round(max(item.rss_bytes for item in gauge.samples) / 1e6),
        **spread("lag", weights.lags_s()),
        **spread("acknowledged", weights.acknowledged_s()),
        "invalidTables": weights.invalid,
    }


def spread(name: str, values: list[float]) -> dict:
    """Return the number, median and 99th percentile of sorted seconds."""
    return {
        f"{name}Samples": len(values),
        f"{name}P50Seconds": round(quantile(values, 0.5), 2),
        f"{name}P99Seconds": round(quantile(values, 0.99), 2),
    }


async def main(pools: int, rollouts: int) -> dict:
    """Start what is needed, measure, end it."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-scale-"))
    control = ControlPlane(folder, binaries.ensure())
    command = [sys.executable, "-m", "tidegate_e2e.ptier.crowd", MODEL]
    kubeconfig = {"KUBECONFIG": str(control.kubeconfig("crowd"))}
    crowd = Program("crowd", command, folder, kubeconfig)
    try:
        control.start()
        async with Api(control.server, control.pki) as api:
            env = environment._assemble(folder, control, api)
            try:
                await wait(api.ready, "API server")
                await env._install()
                crowd.start()
                env._start_routers()
                env.add_operator(control.kubeconfig("operator"))
                return await measure(env, api, pools, rollouts)
            finally:
                env.end()
                crowd.kill()
    except AnswerError as error:
        raise SystemExit(f"the API server refused: {error}") from error
    finally:
        control.stop()
        if "TIDEGATE_KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    found = asyncio.run(main(*(given or [1000, 100])))
    (ROOT / ".bench").mkdir(exist_ok=True)
    (ROOT / ".bench" / "rollout-scale.json").write_text(json.dumps(found, indent=1) + "\n")
    print(" ".join(f"{name}={value}" for name, value in found.items()))
