"""The result as one HTML file: tables and plots, without scripts and without the network."""

import math
from collections.abc import Iterator, Mapping
from html import escape

from tidegate_cli.core.loadtest import svg
from tidegate_cli.core.loadtest.histogram import Histogram
from tidegate_cli.core.loadtest.outcome import Outcome
from tidegate_cli.core.loadtest.result import Result, lines
from tidegate_cli.core.loadtest.tally import Tally

_STYLE = """
body { font: 15px system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #111827; background: #ffffff }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { border: 1px solid #d1d5db; padding: .3rem .7rem; text-align: right }
th { background: #f3f4f6 } td:first-child, th:first-child { text-align: left }
svg { width: 100%; height: auto; margin: 1rem 0; border: 1px solid #e5e7eb }
.bad { color: #b91c1c; font-weight: bold } .good { color: #15803d; font-weight: bold }
"""
_NINES = ((0.0, "0"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"))


def html(result: Result) -> str:
    """Return the whole document."""
    verdict = (
        "".join(f'<p class="bad">{escape(text)}</p>' for text in result.violated)
        or '<p class="good">every demand is met</p>'
    )
    parts = [
        f"<h1>{escape(result.load)}</h1>",
        f"<p>{escape(result.target)}</p>",
        verdict,
        *(f'<p class="bad">{escape(text)}</p>' for text in result.doubts),
        *_tables(result),
        *_plots(result.tally),
        "<h2>As text</h2><pre>" + escape("\n".join(lines(result))) + "</pre>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(result.load)}</title><style>{_STYLE}</style></head><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _tables(result: Result) -> Iterator[str]:
    yield _table(
        ("", "value"),
        {
            "answers": f"{result.requests:,}",
            "seconds": f"{result.seconds:.1f}",
            "good answers a second": f"{result.throughput:,.1f}",
            "lost": f"{result.lost:,}",
            "generator's use of a core": f"{result.generator_cpu_ratio:.0%}",
        },
    )
    latencies = {
        "good answers": result.latency_ms,
        "refusals": result.refused_ms,
        "failures": result.failed_ms,
        "sent late by": result.late_ms,
    }
    for name, values in latencies.items():
        if values:
            yield _table((name, "ms"), {key: f"{value:.3f}" for key, value in values.items()})
    counts: Mapping[str, Mapping[str, int]] = {
        "outcome": {str(name): count for name, count in result.outcomes.items()},
        "revision": result.tally.revisions,
        "worker": result.tally.workers,
        "not ok": dict(result.tally.details.most_common(20)),
    }
    for name, counted in counts.items():
        if counted:
            rows = {key: f"{count:,}" for key, count in sorted(counted.items())}
            yield _table((name, "answers"), rows)


def _table(head: tuple[str, str], rows: Mapping[str, str]) -> str:
    body = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows.items()
    )
    return f"<table><tr><th>{escape(head[0])}</th><th>{escape(head[1])}</th></tr>{body}</table>"


def _plots(tally: Tally) -> Iterator[str]:
    latency = tally.latency
    if latency.counts:
        yield _percentile_plot(latency)
        yield _latency_plot(tally)
    if tally.seconds:
        yield _outcome_plot(tally)


def _percentile_plot(latency: Histogram) -> str:
    """The curve of HdrHistogram's plotter: nines on the x axis, milliseconds on a log y axis."""
    least = 0.5 / latency.total  # the whole is drawn half an answer short: it has no end
    points = [
        (_nines(share, least), math.log10(max(us, 1.0) / 1000)) for share, us in latency.curve()
    ]
    deepest = max(at for at, _ in points)
    ticks = [svg.Tick(_nines(share, least), label) for share, label in _NINES]
    shown = [tick for tick in ticks if tick.at <= deepest] + [svg.Tick(deepest, "max")]
    axes = svg.Axes(
        title="Latency by percentile",
        x_label="percentile",
        y_label="ms",
        x_ticks=shown,
        y_ticks=svg.log_ticks(10 ** points[0][1], 10 ** points[-1][1]),
    )
    return svg.line_plot(axes, {"good answers": points})


def _nines(share: float, least: float) -> float:
    """Return how many nines a share has, where `least` is the smallest rest that is drawn."""
    return -math.log10(max(1 - share, least))


def _latency_plot(tally: Tally) -> str:
    seconds = [*sorted(tally.seconds.items())]
    lines_ms = {
        name: [(at, one.latency.quantile_us(q) / 1000) for at, one in seconds if one.latency.counts]
        for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
    most = max(value for line in lines_ms.values() for _, value in line)
    return svg.line_plot(_over_time("Latency over time", "ms", tally, most), lines_ms)


def _outcome_plot(tally: Tally) -> str:
    seconds = [*sorted(tally.seconds.items())]
    seen = [outcome for outcome in Outcome if tally.outcomes[outcome]]
    layers = {
        str(name): [(float(at), float(one.outcomes[name])) for at, one in seconds] for name in seen
    }
    most = max(one.outcomes.total() for _, one in seconds)
    axes = _over_time("Answers by second and outcome", "answers a second", tally, most)
    return svg.stacked_bars(axes, layers)


def _over_time(title: str, unit: str, tally: Tally, most: float) -> svg.Axes:
    return svg.Axes(
        title=title,
        x_label="seconds since the warm-up",
        y_label=unit,
        x_ticks=svg.round_ticks(max(tally.seconds) + 1),
        y_ticks=svg.round_ticks(most),
    )
