"""What large bodies, idle connections and a long table cost."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tidegate_e2e.routerbench import peers, stubs
from tidegate_e2e.routerbench.figures import Book, Json, ratios, spread
from tidegate_e2e.routerbench.load import Target, http_options, loadtest, number, wrk
from tidegate_e2e.routerbench.machine import Bench, peak_bytes, reset_peak, rss_bytes
from tidegate_e2e.routerbench.peers import Router
from tidegate_e2e.routerbench.plan import Plan
from tidegate_e2e.routerbench.table import Worker

_MIB = 1024 * 1024
_BODY_BYTES, _AT_ONCE, _BODIES = 64 * _MIB, 10, 20
_IDLE, _ACTIVE = 5000, 200
_TABLE, _FEW = 1000, 2
_HEADER = "inference-header-content-length"


def large_bodies(bench: Bench, plan: Plan, book: Book) -> None:
    """Ten bodies of 64 MiB at once: how much the router's memory grows."""
    _, ports = stubs.workers(bench, 2, service_ms=0, slots=_AT_ONCE)
    body, json_bytes = bench.folder / "large.bin", _large_head()
    body.write_bytes(json_bytes + bytes(_BODY_BYTES - len(json_bytes)))
    grown: list[float] = []
    lost: list[float] = []
    for _ in range(plan.rounds):
        with bench.part() as part:
            router = peers.ours(part, [Worker(http=port) for port in ports])
            pid = _pid(router)
            before_bytes = rss_bytes(pid)
            reset_peak(pid)
            options = [
                *http_options(Target(router.port, router.path, body)), "-c", str(_AT_ONCE),
                "--count", str(_BODIES), "--timeout", "60",
                "--header", f"{_HEADER}: {len(json_bytes)}",
            ]  # fmt: skip
            found = loadtest(bench.folder, "large", options).result()
            grown.append((peak_bytes(pid) - before_bytes) / _MIB)
            lost.append(number(found, "lost"))
        print(
            f"bench: 64 MiB x{_AT_ONCE}: RSS +{grown[-1]:.0f} MiB, lost {lost[-1]:.0f}", flush=True
        )
    row: dict[str, Json] = {"rss_growth_mib": spread(grown), "lost": spread(lost)}
    book.row("large_bodies", row)
    book.ratio("large_bodies_rss_growth_mib", grown)


def _large_head() -> bytes:
    """Return the JSON of a binary request that fills 64 MiB; its own length is in the sum."""
    form = (
        '{{"inputs":[{{"name":"IN","datatype":"UINT8","shape":[1,{size}],'
        '"parameters":{{"binary_data_size":{size}}}}}]}}'
    )
    length = len(form.format(size=_BODY_BYTES - 100))
    return form.format(size=_BODY_BYTES - length).encode()


def idle_connections(bench: Bench, plan: Plan, book: Book) -> None:
    """200 busy connections, without and with 5 000 idle ones beside them."""
    stub, ports = peers.stub(bench)
    body = bench.folder / "body.json"
    body.write_bytes(peers.BODY)
    router = peers.ours(bench, [Worker(http=port) for port in ports])
    target = Target(router.port, router.path, body)
    alone: list[float] = []
    crowded: list[float] = []
    memory: list[float] = []
    for _ in range(plan.rounds):
        alone.append(wrk(target, _ACTIVE, plan.seconds, stub, router.program).p99_ms)
        with _idle(router.port, _IDLE):
            crowded.append(wrk(target, _ACTIVE, plan.seconds, stub, router.program).p99_ms)
            memory.append(rss_bytes(_pid(router)) / _MIB)
        print(
            f"bench: {_IDLE} idle: p99 {crowded[-1]:.1f} ms (alone {alone[-1]:.1f}), "
            f"RSS {memory[-1]:.0f} MiB",
            flush=True,
        )
    row: dict[str, Json] = {
        "alone_p99_ms": spread(alone), "p99_ms": spread(crowded), "rss_mib": spread(memory),
    }  # fmt: skip
    book.row("idle_connections", row)
    book.ratio("idle_connections_p99_ratio", ratios(crowded, alone))
    book.ratio("idle_connections_rss_mib", memory)


@contextmanager
def _idle(port: int, count: int) -> Iterator[None]:
    """Hold connections that send nothing, from several addresses: one has too few ports left."""
    with ExitStack() as stack:
        for number_ in range(count):
            source = f"127.0.0.{2 + number_ % 8}"
            one = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
            stack.enter_context(one)
        yield


def thousand_workers(bench: Bench, plan: Plan, book: Book) -> None:
    """A table of 1 000 workers against one of two, on the same stub."""
    addresses = [f"127.1.{at // 250}.{1 + at % 250}" for at in range(_TABLE)]
    stub, ports = peers.stub(bench, addresses)
    body = bench.folder / "body.json"
    body.write_bytes(peers.BODY)
    few = peers.ours(bench, [Worker(http=port) for port in ports])
    many = peers.ours(bench, [Worker(http=ports[0], address=one) for one in addresses])
    rate: dict[str, list[float]] = {"few": [], "many": []}
    cost_us: dict[str, list[float]] = {"few": [], "many": []}
    for _ in range(plan.rounds):
        for name, router in (("few", few), ("many", many)):
            target = Target(router.port, router.path, body)
            found = wrk(target, 32, plan.seconds, stub, router.program)
            rate[name].append(found.rate)
            cost_us[name].append(found.router_cpu_us or 0.0)
            print(f"bench: table of {name}: {found.rate:,.0f}/s {cost_us[name][-1]:.1f} us CPU")
    row: dict[str, Json] = {
        f"{name}_{what}": spread(values[name])
        for what, values in (("rate", rate), ("router_cpu_us", cost_us))
        for name in ("few", "many")
    }
    book.row("thousand_workers", row)
    book.ratio("thousand_workers_ratio", ratios(cost_us["few"], cost_us["many"]))


def _pid(router: Router) -> int:
    if router.program is None:
        raise RuntimeError("no process")
    return router.program.pid
