"""What a router does for its clients when workers are unequal or overloaded."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from tidegate_e2e.routerbench import peers, stubs
from tidegate_e2e.routerbench.figures import Book, Json, ratios, spread
from tidegate_e2e.routerbench.load import Running, Target, http_options, loadtest, number
from tidegate_e2e.routerbench.machine import Bench
from tidegate_e2e.routerbench.peers import Router
from tidegate_e2e.routerbench.plan import Plan
from tidegate_e2e.routerbench.table import Worker

_SERVICE_MS, _SLOTS, _WORKERS = 10.0, 2, 4
_CAPACITY = _WORKERS * _SLOTS * 1000 / _SERVICE_MS
_SLOW, _LOAD = 10.0, 0.6
_OVERLOAD, _OVERLOAD_SERVICE_MS, _OVERLOAD_SLOTS = 5.0, 40.0, 2
_OVERLOAD_CAPACITY = _WORKERS * _OVERLOAD_SLOTS * 1000 / _OVERLOAD_SERVICE_MS
_BEFORE_S, _DURING_S, _AFTER_S = 5, 8, 12
_NORMAL = 1.5  # times the p99 of before
Start = Callable[[Bench, Sequence[int], int], Router]


def slow_worker(bench: Bench, plan: Plan, book: Book) -> None:
    """One of four workers ten times slower at 60 % of the healthy capacity."""
    row: dict[str, Json] = {
        "offered": _CAPACITY * _LOAD,
        "service_ms": _SERVICE_MS,
        "slots": _SLOTS,
    }
    for name, start in _ROUTERS.items():
        healthy, slowed = (
            _p99_ms(bench, plan, start, f"{name}, slowest worker x{factor:g}", factor)
            for factor in (1.0, _SLOW)
        )
        row[name] = {"healthy_p99_ms": spread(healthy), "slow_p99_ms": spread(slowed)}
        book.ratio(f"slow_worker_p99_ratio_{name}", ratios(slowed, healthy))
    book.row("slow_worker", row)


def _p99_ms(bench: Bench, plan: Plan, start: Start, words: str, slow: float) -> list[float]:
    with bench.part() as part:
        _, ports = stubs.workers(part, _WORKERS, service_ms=_SERVICE_MS, slots=_SLOTS, slow=slow)
        router = start(part, ports, _SLOTS)
        found: list[float] = []
        for _ in range(plan.rounds):
            running = _load(part, router, "slow", _CAPACITY * _LOAD, plan.seconds, 2)
            found.append(number(running.result(), "latency_ms", "p99"))
            print(f"bench: {words}: p99 {found[-1]:.1f} ms", flush=True)
    return found


def _ours(bench: Bench, ports: Sequence[int], slots: int) -> Router:
    """The limit is that of router.md: twice the instances."""
    return peers.ours(bench, [Worker(http=port, limit=2 * slots) for port in ports])


def _nginx(bench: Bench, ports: Sequence[int], _slots: int) -> Router:
    return peers.nginx(bench, ports)


_ROUTERS: dict[str, Start] = {"ours": _ours, "nginx": _nginx}


def overload(bench: Bench, plan: Plan, book: Book) -> None:
    """Five times the capacity for some seconds, on top of clients that are always there."""
    goodput: list[float] = []
    refusal_ms: list[float] = []
    normal_after_s: list[float] = []
    for _ in range(plan.rounds):
        with bench.part() as part:
            found = _overloaded(part)
        goodput.append(found[0] / _OVERLOAD_CAPACITY)
        refusal_ms.append(found[1])
        normal_after_s.append(found[2])
        print(
            f"bench: overload x{_OVERLOAD:g}: goodput {goodput[-1]:.0%}, "
            f"refusals p99 {found[1]:.1f} ms, normal after {found[2]:.0f} s",
            flush=True,
        )
    row: dict[str, Json] = {
        "capacity": _OVERLOAD_CAPACITY,
        "goodput_ratio": spread(goodput),
        "refusal_p99_ms": spread(refusal_ms),
        "normal_after_s": spread(normal_after_s),
    }
    book.row("overload", row)
    book.ratio("overload_goodput_ratio", goodput)
    book.ratio("overload_refusal_p99_ms", refusal_ms)
    book.ratio("overload_normal_after_s", normal_after_s)


def _overloaded(bench: Bench) -> tuple[float, float, float]:
    """Return good answers a second and the p99 of refusals while overloaded, and the recovery."""
    _, ports = stubs.workers(
        bench, _WORKERS, service_ms=_OVERLOAD_SERVICE_MS, slots=_OVERLOAD_SLOTS
    )
    router = _ours(bench, ports, _OVERLOAD_SLOTS)
    base = _OVERLOAD_CAPACITY * _LOAD
    always = _load(bench, router, "always", base, _BEFORE_S + _DURING_S + _AFTER_S, 1)
    time.sleep(_BEFORE_S + 1)
    wave = _load(bench, router, "wave", _OVERLOAD_CAPACITY * _OVERLOAD - base, _DURING_S, 0)
    extra, steady = wave.result(), always.result()
    began = int(number(extra, "began_at") - number(steady, "began_at"))
    seconds = series(steady)
    ended = began + _DURING_S
    own = sum(seconds[at].get("ok", 0.0) for at in range(began, ended) if at in seconds)
    good = (number(extra, "outcomes", "ok") + own) / _DURING_S
    return good, number(extra, "refused_latency_ms", "p99"), recovery_s(seconds, began, ended)


def series(document: dict[str, object]) -> dict[int, dict[str, float]]:
    """Return loadtest's figures by second."""
    listed = document.get("series")
    found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return {int(one["second"]): one for one in found}


def recovery_s(seconds: Mapping[int, Mapping[str, float]], began: int, ended: int) -> float:
    """Return the seconds from the end of the wave until p99 is normal.

    Normal: the median of three seconds' p99 is at most 1.5 times that of the seconds before the
    wave. A second has too few answers to be judged alone. `_AFTER_S` when that does not come.
    """
    p99_ms = {at: one["p99_ms"] for at, one in seconds.items()}
    before_ms = statistics.median([p99_ms[at] for at in range(began) if at in p99_ms] or [0.0])
    for at in range(ended, max(p99_ms, default=0) - 1):
        three = [p99_ms.get(one, math.inf) for one in range(at, at + 3)]
        if statistics.median(three) <= _NORMAL * before_ms:
            return float(at - ended)
    return float(_AFTER_S)


def _load(
    bench: Bench, router: Router, name: str, rate: float, seconds: float, warmup_s: float
) -> Running:
    body = bench.folder / "body.json"
    body.write_bytes(peers.BODY)
    options = [
        *http_options(Target(router.port, router.path, body)), "--rate", f"{rate:.1f}",
        "--arrivals", "poisson", "--duration", str(seconds), "--warmup", str(warmup_s),
        "--expect-refusals", "--timeout", "10",
    ]  # fmt: skip
    return loadtest(bench.folder, name, options)
