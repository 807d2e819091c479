"""What one decision costs: plan, next_attempt, settle, release and finish on the production core.

No socket and no event loop: pure calls on a clock that the bench moves by itself. Prints a line per
shape, writes .bench/decide.json and ends with one key=value line. Run it alone, on one core:
`taskset -c 1 .venv/bin/python tests/bench/bench_decide.py [--profile]`.
"""

import cProfile
import gc
import json
import pstats
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import PoolIdentity, RoutedWorker, RouteTableSpec, Served
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.faults import Outcome
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Ending, Route

ROOT = Path(__file__).parents[2]
WORKERS = (4, 20, 1000)
REVISIONS = (1, 2)
REQUESTS, ROUNDS = 20_000, 5
IN_FLIGHT = 32  # as with 32 clients, each waiting for its answer
STEP_S = 25e-6  # between two requests: 40 k/s
REBUILDS = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """How many workers there are, spread over how many revisions."""

    workers: int
    revisions: int

    @property
    def name(self) -> str:
        """Return a key for the result file."""
        return f"w{self.workers}_r{self.revisions}"


def table(shape: Shape) -> RouteTableSpec:
    """Return a fresh table; a second revision is a canary with 10 % and half of the workers."""
    chance = random.Random(7)
    workers = []
    for number in range(shape.workers):
        revision = f"r{number % shape.revisions + 1}"
        workers.append(
            RoutedWorker(
                id=f"00000000-0000-4000-8000-{number:012d}",
                name=f"pool-{revision}-{number}",
                address=f"10.0.{number // 250}.{number % 250 + 1}",
                revision=revision,
                accelerator="cpu",
                serves=[Served(revision=revision, model="m", limit=64)],
                score=0.5 + chance.random() / 2,
                score_age_s=1.0,
            )
        )
    weights = [("r1", 90), ("r2", 10)] if shape.revisions > 1 else [("r1", 100)]
    return RouteTableSpec(
        pool=PoolIdentity(namespace="ns", name="p", uid="u1"),
        sequence=1,
        workers=workers,
        weights=[RevisionWeight(revision=name, weight=weight) for name, weight in weights],
    )


class Load:
    """A dispatcher with IN_FLIGHT requests at workers, the oldest of which ends next."""

    def __init__(self, shape: Shape) -> None:
        chance = random.Random(1)
        self.now_s = 1000.0
        self.dispatcher = Dispatcher("bench", chance.random)
        self.latencies = [chance.expovariate(200) for _ in range(4096)]
        spec = table(shape)
        self.dispatcher.proof.sequence_advanced(self.now_s)
        self.dispatcher.apply({spec.pool.uid: spec}, [spec.pool.uid], self.now_s)
        self.running = [self.begin() for _ in range(IN_FLIGHT)]

    def begin(self) -> tuple[Route, Attempt]:
        """Plan a request and take a slot."""
        route = self.dispatcher.plan(Ask(model="m"), self.now_s)
        if isinstance(route, Refusal):
            raise TypeError(route.message)
        attempt = self.dispatcher.next_attempt(route, self.now_s)
        if not isinstance(attempt, Attempt):
            raise TypeError(repr(attempt))
        return route, attempt

    def run(self, requests: int) -> None:
        """Begin and end that many requests; a tick every 40 000."""
        dispatcher, running, latencies = self.dispatcher, self.running, self.latencies
        for number in range(requests):
            self.now_s += STEP_S
            oldest = number % IN_FLIGHT
            route, attempt = running[oldest]
            ending = Ending(outcome=Outcome.OK, latency_s=latencies[number & 4095])
            dispatcher.settle(route, attempt, ending, self.now_s)
            dispatcher.release(attempt)
            dispatcher.finish(route, self.now_s)
            running[oldest] = self.begin()

    def rebuild(self) -> None:
        """Rebuild the view once, as every second under traffic."""
        self.now_s += 1.0
        self.dispatcher.proof.sequence_advanced(self.now_s)
        self.dispatcher.tick(self.now_s)
        self.dispatcher.view("u1", self.now_s)


def timed_s(work: Callable[[], None]) -> float:
    """Return the processor seconds that `work` took, without the garbage of what came before."""
    gc.collect()
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def measure(shape: Shape) -> dict[str, float]:
    """Return us per request (median, least, most) and ms per rebuild with its tick."""
    load = Load(shape)
    load.run(REQUESTS // 4)
    rounds = [timed_s(lambda: load.run(REQUESTS)) / REQUESTS * 1e6 for _ in range(ROUNDS)]
    rebuilds = [timed_s(load.rebuild) * 1e3 for _ in range(REBUILDS)]
    return {
        "request_us": round(statistics.median(rounds), 2),
        "request_us_min": round(min(rounds), 2),
        "request_us_max": round(max(rounds), 2),
        "rebuild_ms": round(statistics.median(rebuilds), 3),
    }


def profile(shape: Shape) -> None:
    """Print where the time of one shape goes."""
    load = Load(shape)
    recorder = cProfile.Profile()
    recorder.runcall(load.run, REQUESTS)
    pstats.Stats(recorder).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Measure every shape."""
    if "--profile" in sys.argv:
        profile(Shape(4, 1))
        return
    found = {}
    for shape in (Shape(workers, revisions) for workers in WORKERS for revisions in REVISIONS):
        found[shape.name] = measure(shape)
        print(f"{shape.name:10} {found[shape.name]}", flush=True)
    out = ROOT / ".bench" / "decide.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(" ".join(f"{name}_us={row['request_us']}" for name, row in found.items()))


if __name__ == "__main__":
    main()
