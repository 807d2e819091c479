"""The speed rows: a small POST over HTTP, 32 connections and one, and p99 at half load."""

import statistics

from tidegate_e2e.routerbench import peers, table
from tidegate_e2e.routerbench.figures import Book, Json, Series, ratios, spread, throughput_ratio
from tidegate_e2e.routerbench.load import Target, http_options, loadtest, number, wrk
from tidegate_e2e.routerbench.machine import Bench
from tidegate_e2e.routerbench.peers import Router
from tidegate_e2e.routerbench.plan import Plan
from tidegate_e2e.routerbench.table import Worker

_HALF = 0.5


class Field:
    """All routers over the same two workers, and the order in which a round asks them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.stub, ports = peers.stub(bench)
        self.body = bench.folder / "body.json"
        self.body.write_bytes(peers.BODY)
        workers = [Worker(http=port) for port in ports]
        self.ours, self.features = _ours(bench, workers)
        self.others = [
            peers.nginx(bench, ports),
            peers.haproxy(bench, ports),
            *(peers.rust(bench, name, ports) for name in peers.RUST),
            peers.aiohttp_proxy(bench, ports),
        ]
        vllm = next(one for one in self.others if one.name == "vllm-router")
        self.others.append(Router("vllm-router /v2", vllm.port, peers.INFER, vllm.program))
        if (same := peers.generate(self.ours)) is not None:
            self.others.append(same)
        self.direct = Router("direct", ports[0], peers.INFER, None)

    @property
    def routers(self) -> list[Router]:
        """Every router once."""
        return [self.ours, self.direct, *self.others]

    def round(self) -> list[Router]:
        """The order of one round: ours before and after all others (A/B/A)."""
        return [*self.routers, self.ours]

    def target(self, router: Router) -> Target:
        """Return where a router's load goes."""
        return Target(router.port, router.path, self.body, router.headers)


def _ours(bench: Bench, workers: list[Worker]) -> tuple[Router, str]:
    """Start ours with every feature on, and say so; told loudly where this checkout lacks one."""
    turned_on = table.feature("all")
    try:
        return peers.ours(bench, workers, turned_on=turned_on), turned_on.about
    except RuntimeError as error:
        words = f"plain, as {str(error).splitlines()[0]}"
        print(f"bench: ours runs {words}", flush=True)
        return peers.ours(bench, workers), words


def rows(bench: Bench, plan: Plan, book: Book) -> None:
    """Measure 32 connections, one connection, and p99 at half load."""
    field = Field(bench)
    book.figure("ours_features", field.features)
    busy = _rounds(field, plan, 32)
    book.row("http_c32", {name: series.document() for name, series in busy.items()})
    note_throughput(book, busy)
    single = _rounds(field, plan, 1)
    documents = {
        name: series.document(closed_loop_of_many=False) for name, series in single.items()
    }
    book.row("http_c1", documents)
    _note_single(book, single)
    _half_load(field, plan, book, busy)


def _rounds(field: Field, plan: Plan, connections: int) -> dict[str, Series]:
    found = {router.name: Series() for router in field.routers}
    for number_ in range(plan.rounds):
        for series in found.values():
            series.rounds.append([])
        for router in field.round():
            measured = wrk(
                field.target(router), connections, plan.seconds, field.stub, router.program
            )
            found[router.name].rounds[-1].append(measured)
            cost = "" if measured.router_cpu_us is None else f"{measured.router_cpu_us:.1f} us CPU"
            print(
                f"bench: round {number_ + 1} c={connections} {router.name}: "
                f"{measured.rate:,.0f}/s p50 {measured.p50_ms:.3f} ms {cost} "
                f"load core {measured.load_use:.0%} failed {measured.failed}",
                flush=True,
            )
    return found


def note_throughput(book: Book, found: dict[str, Series]) -> None:
    """Note the ratios of the busy row."""
    best = max(peers.RUST, key=lambda name: statistics.median(found[name].values("rate")))
    for name, other in (("best_rust", best), ("nginx", "nginx"), ("haproxy", "haproxy")):
        values, basis = throughput_ratio(found["ours"], found[other])
        book.ratio(f"http_ratio_to_{name}", values)
        book.figure(f"http_ratio_to_{name}_basis", basis)
    book.figure("http_best_rust", best)
    book.write()


def _note_single(book: Book, found: dict[str, Series]) -> None:
    """Note what each router adds to the median of one connection."""
    direct_ms = found["direct"].values("p50_ms")
    for name in ("ours", "nginx", *peers.RUST):
        added_ms = [
            one - other for one, other in zip(found[name].values("p50_ms"), direct_ms, strict=True)
        ]
        book.ratio(f"http_c1_added_p50_ms_{name.replace('-', '_')}", added_ms)
    book.write()


def _half_load(field: Field, plan: Plan, book: Book, busy: dict[str, Series]) -> None:
    """Offer every router half of what the better Rust router can do, as independent users would."""
    best = max(statistics.median(busy[name].values("rate")) for name in peers.RUST)
    shown = [
        one
        for one in field.routers
        if one.name not in {"aiohttp", "vllm-router /v2", "ours /generate"}
    ]
    p99_ms: dict[str, list[float]] = {router.name: [] for router in shown}
    uses: list[float] = []
    for _ in range(plan.rounds):
        for router in shown:
            found = _open_loop(field, router, best * _HALF, plan.seconds)
            p99_ms[router.name].append(number(found, "latency_ms", "p99"))
            uses.append(number(found, "generator", "cpu_ratio"))
            print(f"bench: half load {router.name}: p99 {p99_ms[router.name][-1]:.3f} ms")
    row: dict[str, Json] = {name: {"p99_ms": spread(values)} for name, values in p99_ms.items()}
    row["offered"], row["generator_use"] = round(best * _HALF, 1), spread(uses)
    book.row("http_half_load", row)
    for name in peers.RUST:
        values = ratios(p99_ms["ours"], p99_ms[name])
        book.ratio(f"http_half_load_p99_ratio_to_{name.replace('-', '_')}", values)
    book.write()


def _open_loop(field: Field, router: Router, rate: float, seconds: int) -> dict[str, object]:
    options = [
        *http_options(field.target(router)), "--rate", f"{rate:.1f}", "--arrivals", "poisson",
        "--duration", str(seconds), "--warmup", "1", "--connections", "64",
    ]  # fmt: skip
    return loadtest(field.bench.folder, "half", options).result()
