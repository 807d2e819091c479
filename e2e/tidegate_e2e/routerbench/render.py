"""The section of docs/benchmarks.md and its picture, from .bench/router.json: no figure by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate_cli.core.loadtest.svg import horizontal_bars
from tidegate_e2e.routerbench.figures import Json

BEGIN = "<!-- router bench: written by bench_router.py --docs -->"
END = "<!-- router bench: end -->"
IMAGE = "images/router-speed.svg"
Document = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Target:
    """A promise: the figure's key, what it is, and its bound in words and numbers."""

    key: str
    words: str
    bound: float
    at_least: bool = True

    @property
    def limit(self) -> str:
        """The bound as text."""
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def met(self, value: float) -> bool:
        """Whether a figure keeps the promise."""
        return value >= self.bound if self.at_least else value <= self.bound


TARGETS = (
    Target("http_ratio_to_best_rust", "HTTP, 32 connections: ours / the better Rust router", 2.2),
    Target("http_ratio_to_nginx", "the same: ours / nginx", 0.4),
    Target(
        "http_c1_added_p50_ms_ours",
        "HTTP, 1 connection: p50 added over direct, ms",
        0.2,
        at_least=False,
    ),
    Target(
        "http_half_load_p99_ratio_to_vllm_router",
        "p99 at half of the better Rust router's rate: ours / vllm-router",
        1.0,
        at_least=False,
    ),
    Target(
        "http_half_load_p99_ratio_to_sglang_router",
        "the same: ours / sglang-router",
        1.0,
        at_least=False,
    ),
    Target("grpc_ratio_to_grpc_aio", "gRPC: ours / grpc.aio byte pass-through", 5.0),
    Target("grpc_ratio_to_nginx", "gRPC: ours / nginx grpc_pass", 0.6),
    Target("grpc_ratio_to_nginx_differ", "the same, another header block each time", 0.6),
    Target("triton_http_ratio_to_direct", "Triton, 5 ms model, HTTP: routed / direct", 0.95),
    Target("triton_grpc_ratio_to_direct", "Triton, 5 ms model, gRPC: routed / direct", 0.95),
    Target("triton_http_wrong_or_lost", "the same: answers wrong or lost, HTTP", 0, at_least=False),
    Target("triton_grpc_wrong_or_lost", "the same: answers wrong or lost, gRPC", 0, at_least=False),
    Target("two_process_ratio", "two processes under a quota of 25 % each / one", 1.9),
    Target(
        "large_bodies_rss_growth_mib",
        "10 bodies of 64 MiB at once: RSS growth, MiB",
        64,
        at_least=False,
    ),
    Target(
        "idle_connections_rss_mib",
        "5 000 idle, 200 active connections: RSS, MiB",
        250,
        at_least=False,
    ),
    Target(
        "idle_connections_p99_ratio", "the same: p99 / that without the idle", 1.5, at_least=False
    ),
    Target("thousand_workers_ratio", "1 000 workers in the table: speed / that with 2", 0.9),
    Target(
        "slow_worker_p99_ratio_ours",
        "one of 4 workers 10x slower, 60 % load: p99 / all healthy",
        2.0,
        at_least=False,
    ),
    Target("overload_goodput_ratio", "5x overload: good answers / capacity", 0.9),
    Target("overload_refusal_p99_ms", "the same: p99 of refusals, ms", 50, at_least=False),
    Target("overload_normal_after_s", "the same: seconds until p99 is normal", 5, at_least=False),
)


def section(document: Document) -> str:
    """Return the section between its marks."""
    lines = [
        BEGIN,
        "## The router beside others",
        "",
        *_preamble(document),
        "",
        "| Figure | Target | Median | Least to most | |",
        "|---|---|---|---|---|",
        *_promises(document),
        "",
        f"![Requests a second of each router on one core]({IMAGE})",
        "",
        *_speeds(document, "http_c32", "Small POST, 32 connections"),
        "",
        *_speeds(document, "http_c1", "Small POST, 1 connection"),
        "",
        *_costs(document),
        *_notes(document),
        END,
    ]
    return "\n".join(lines)


def placed(text: str, document: Document) -> str:
    """Return docs/benchmarks.md with its section replaced, or appended when it has none."""
    before, found, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if found else "\n"
    return f"{before.rstrip()}\n\n{section(document)}{after}"


def picture(document: Document) -> str:
    """Return the plot: requests a second at 32 connections, direct last."""
    bars = []
    for name, row in _routers(document, "http_c32"):
        note = "load-bound" if row.get("load_bound") else ""
        bars.append(
            (name, _figure(row, "rate"), note or ("disturbed" if row.get("disturbed") else ""))
        )
    bars.sort(key=lambda bar: -bar[1])
    return horizontal_bars("Small POST, 32 connections, one core", "requests a second", bars) + "\n"


def _preamble(document: Document) -> Iterator[str]:
    machine, versions = document.get("machine"), document.get("versions")
    names = versions if isinstance(versions, dict) else {}
    where = machine if isinstance(machine, dict) else {}
    listed = ", ".join(f"{name} {version}" for name, version in sorted(names.items()))
    date, rounds, seconds = (document.get(key, "?") for key in ("date", "rounds", "seconds"))
    yield (
        f"Tier P. `make bench-router`, {date}, {where.get('cores')} cores of {where.get('cpu')}; "
        "each router on one core, workers and load on the other;"
    )
    yield (
        f"{rounds} rounds of {seconds} s, interleaved, ours before and after the others in each. "
        "Configurations of all peers: tests/bench/peers."
    )
    yield f"Versions: {listed}."


def _promises(document: Document) -> Iterator[str]:
    for target in TARGETS:
        value = document.get(target.key)
        if not isinstance(value, int | float):
            yield f"| {target.words} | {target.limit} | | | not measured |"
            continue
        low, high = (document.get(f"{target.key}_{end}") for end in ("min", "max"))
        spread = "" if low is None else f"{low:g} to {high:g}"
        verdict = "met" if target.met(float(value)) else "**short**"
        if document.get(f"{target.key}_basis") == "cpu":
            verdict += ", by CPU"
        yield f"| {target.words} | {target.limit} | {value:g} | {spread} | {verdict} |"


def _speeds(document: Document, row: str, title: str) -> Iterator[str]:
    yield f"{title}:"
    yield ""
    yield "| Router | Requests a second | Router CPU, us each | p50 ms | p99 ms | Load core | |"
    yield "|---|---|---|---|---|---|---|"
    for name, found in _routers(document, row):
        marks = [mark.replace("_", "-") for mark in ("load_bound", "disturbed") if found.get(mark)]
        digits = {"rate": 0, "router_cpu_us": 1, "p50_ms": 3, "p99_ms": 2}
        cells = [_spread(found, key, count) for key, count in digits.items()]
        cells += [f"{_figure(found, 'load_use'):.0%}", ", ".join(marks)]
        yield f"| {name} | {' | '.join(cells)} |"


def _costs(document: Document) -> Iterator[str]:
    features = _routers(document, "feature_costs")
    if not features:
        return
    yield "What features cost, one at a time (router CPU of a request in us, and beyond `plain`):"
    yield ""
    yield "| Feature | | CPU | Added |"
    yield "|---|---|---|---|"
    for name, row in features:
        if "not_measured" in row:
            yield f"| {name} | not measured: {row['not_measured']} | | |"
        else:
            cells = [_spread(row, key, 1) for key in ("router_cpu_us", "added_us")]
            yield f"| {name} | {row.get('about', '')} | {' | '.join(cells)} |"
    yield ""


def _notes(document: Document) -> Iterator[str]:
    yield (
        "CPU is the primary figure: a load-bound row (load core above 90 %) is slower than its "
        "router, and a disturbed one shared its core with other programs."
    )
    yield (
        "Ratios rest on requests a second, and on CPU each where they are so marked. The Rust "
        "routers get POST /generate, all others POST /v2/models/m/infer; body and answer are the "
        "same."
    )
    rows = document.get("rows")
    yield f"Ours ran with: {document.get('ours_features', 'unknown')}."
    for name, row in sorted(rows.items()) if isinstance(rows, dict) else ():
        if isinstance(row, dict) and "not_measured" in row:
            yield f"Not measured: {name}: {str(row['not_measured']).splitlines()[0]}"


def _routers(document: Document, name: str) -> list[tuple[str, dict[str, Json]]]:
    rows = document.get("rows")
    row = rows.get(name) if isinstance(rows, dict) else None
    found = row.items() if isinstance(row, dict) else ()
    return [(key, value) for key, value in found if isinstance(value, dict)]


def _figure(row: Mapping[str, Json], name: str, part: str = "median") -> float:
    found = row.get(name)
    value = found.get(part) if isinstance(found, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0


def _spread(row: Mapping[str, Json], name: str, digits: int) -> str:
    if name not in row:
        return ""
    median, low, high = (_figure(row, name, part) for part in ("median", "min", "max"))
    return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"
