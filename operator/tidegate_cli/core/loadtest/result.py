"""What a run says: one record that JSON, HTML, the terminal and the exit code are made from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate_cli.core.loadtest.histogram import Histogram
from tidegate_cli.core.loadtest.outcome import Outcome, lost
from tidegate_cli.core.loadtest.tally import Tally

Scalar = str | float | int | bool | None
Json = Scalar | list["Json"] | dict[str, "Json"]
QUANTILES: Mapping[str, float] = {
    "p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999, "max": 1.0,
}  # fmt: skip
LOAD_BOUND_RATIO = 0.9  # of a core: above it the generator, not the target, may be the bound
_LATE_MS = 5.0
_DETAILS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What a run is judged by. None: not judged."""

    max_lost: int | None = None
    max_p99_ms: float | None = None
    client_meant: bool = False
    refused_meant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as it happened. `counted_s`: seconds from the warm-up's end to the last answer."""

    target: str
    load: str  # the load in words, like "1000 req/s for 10 s over HTTP"
    began_at_s: float  # epoch seconds of the warm-up's end
    answers: tuple[str, ...] = ()  # sha256 of each body's good answer, where they are compared
    counted_s: float
    tally: Tally
    generator_cpu_ratio: float  # of one core
    unfinished: int  # requests without an answer when the user interrupted
    interrupted: bool
    demands: Demands


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of a run. Rates are per second, latencies of good answers in milliseconds."""

    target: str
    load: str
    began_at_s: float
    answers: tuple[str, ...]
    seconds: float
    requests: int
    throughput: float
    outcomes: Mapping[Outcome, int]
    lost: int
    latency_ms: Mapping[str, float]
    refused_ms: Mapping[str, float]
    failed_ms: Mapping[str, float]
    late_ms: Mapping[str, float]
    generator_cpu_ratio: float
    unfinished: int
    interrupted: bool
    tally: Tally
    violated: tuple[str, ...]  # demands that the run does not meet
    doubts: tuple[str, ...]  # why the figures may be the generator's own


def result_of(run: Run) -> Result:
    """Return the figures of a run."""
    outcomes = run.tally.outcomes
    gone = lost(
        outcomes,
        client_meant=run.demands.client_meant,
        refused_meant=run.demands.refused_meant,
    )
    latency_ms = quantiles_ms(run.tally.latency)
    return Result(
        target=run.target,
        load=run.load,
        began_at_s=run.began_at_s,
        answers=run.answers,
        seconds=run.counted_s,
        requests=outcomes.total(),
        throughput=outcomes[Outcome.OK] / run.counted_s if run.counted_s > 0 else 0.0,
        outcomes=outcomes,
        lost=gone,
        latency_ms=latency_ms,
        refused_ms=quantiles_ms(run.tally.refused),
        failed_ms=quantiles_ms(run.tally.failed),
        late_ms=quantiles_ms(run.tally.late),
        generator_cpu_ratio=run.generator_cpu_ratio,
        unfinished=run.unfinished,
        interrupted=run.interrupted,
        tally=run.tally,
        violated=tuple(_violated(run.demands, outcomes, gone, latency_ms)),
        doubts=tuple(_doubts(run)),
    )


def quantiles_ms(histogram: Histogram) -> dict[str, float]:
    """Return mean and quantiles in milliseconds; empty without a value."""
    if not histogram.counts:
        return {}
    found = {name: histogram.quantile_us(q) / 1000 for name, q in QUANTILES.items()}
    return {"mean": histogram.mean_us / 1000, **found}


def _violated(
    demands: Demands, outcomes: Mapping[Outcome, int], gone: int, latency_ms: Mapping[str, float]
) -> Iterator[str]:
    if not any(outcomes.values()):
        yield "no request was answered"
    if demands.max_lost is not None and gone > demands.max_lost:
        yield f"{gone} requests lost, at most {demands.max_lost} allowed"
    p99_ms = latency_ms.get("p99")
    if demands.max_p99_ms is None:
        return
    if p99_ms is None:
        yield "no good answer, so no p99"
    elif p99_ms > demands.max_p99_ms:
        yield f"p99 {p99_ms:.3f} ms, at most {demands.max_p99_ms:g} ms allowed"


def _doubts(run: Run) -> Iterator[str]:
    if run.generator_cpu_ratio > LOAD_BOUND_RATIO:
        yield (
            f"load-bound: the generator used {run.generator_cpu_ratio:.0%} of a core, "
            "so the target may be faster than this"
        )
    late_ms = run.tally.late.quantile_us(0.99) / 1000
    if late_ms > _LATE_MS:
        yield f"the generator sent 1 % of the requests more than {late_ms:.1f} ms late"


def document(result: Result) -> dict[str, Json]:
    """Return the result as JSON; the histogram's scheme is that of `histogram.bucket_of`."""
    return {
        "target": result.target,
        "load": result.load,
        "began_at": round(result.began_at_s, 3),
        "seconds": round(result.seconds, 3),
        "requests": result.requests,
        "throughput": round(result.throughput, 3),
        "outcomes": {str(name): count for name, count in sorted(result.outcomes.items())},
        "lost": result.lost,
        "latency_ms": _rounded(result.latency_ms),
        "refused_latency_ms": _rounded(result.refused_ms),
        "failed_latency_ms": _rounded(result.failed_ms),
        "generator": {
            "cpu_ratio": round(result.generator_cpu_ratio, 3),
            "late_ms": _rounded(result.late_ms),
        },
        "unfinished": result.unfinished,
        "interrupted": result.interrupted,
        "violated": list(result.violated),
        "doubts": list(result.doubts),
        "revisions": dict(sorted(result.tally.revisions.items())),
        "workers": dict(sorted(result.tally.workers.items())),
        "details": dict(result.tally.details.most_common(_DETAILS)),
        "answers_sha256": list(result.answers),
        "series": [*_series(result.tally)],
        "histogram_us": _pairs(result.tally.latency),
    }


def _rounded(values: Mapping[str, float]) -> dict[str, Json]:
    return {name: round(value, 4) for name, value in values.items()}


def _pairs(histogram: Histogram) -> list[Json]:
    return [[bucket, count] for bucket, count in sorted(histogram.counts.items())]


def _series(tally: Tally) -> Iterator[Json]:
    for at_s, second in sorted(tally.seconds.items()):
        yield {
            "second": at_s,
            **{str(name): count for name, count in sorted(second.outcomes.items())},
            "p50_ms": round(second.latency.quantile_us(0.5) / 1000, 4),
            "p99_ms": round(second.latency.quantile_us(0.99) / 1000, 4),
        }


def lines(result: Result) -> Iterator[str]:
    """Yield the result for a terminal, most important first."""
    yield f"{result.load} -> {result.target}"
    yield (
        f"{result.requests} answers in {result.seconds:.1f} s, "
        f"{result.throughput:.1f} good ones a second, {result.lost} lost"
    )
    yield f"outcomes: {_counts(result.outcomes)}"
    for name, values in (("latency", result.latency_ms), ("refusals", result.refused_ms)):
        if values:
            yield f"{name} ms: " + "  ".join(f"{key} {value:.3f}" for key, value in values.items())
    for name, counts in (
        ("revisions", result.tally.revisions),
        ("workers", result.tally.workers),
        ("not ok", dict(result.tally.details.most_common(5))),
    ):
        if counts:
            yield f"{name}: {_counts(counts)}"
    if result.unfinished:
        yield f"interrupted with {result.unfinished} requests in flight; they are not counted"
    yield from (f"doubt: {text}" for text in result.doubts)
    yield from (f"violated: {text}" for text in result.violated)


def _counts(counts: Mapping[Outcome, int] | Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "  ".join(f"{name} {count}" for name, count in ordered) or "none"
