"""The command: options in, a plan, a run, what is written, the exit code."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tidegate_cli.core.loadtest.report import html
from tidegate_cli.core.loadtest.result import Demands, Result, document, lines
from tidegate_cli.core.loadtest.schedule import Arrivals, Limits
from tidegate_cli.errors import InputError
from tidegate_cli.loadtest.asked import Asked, Pace
from tidegate_cli.server import Protocol, server_of

app = typer.Typer(rich_markup_mode=None)
_OPEN_CONNECTIONS = 1000

Model = Annotated[str, typer.Argument(help="Model to ask; not needed with --path and --body.")]
Url = Annotated[
    str,
    typer.Option(
        envvar="TIDEGATE_URL",
        help="Router (or Triton) as HOST:PORT or URL. Default: localhost, 8000 for HTTP and 8001 "
        "for gRPC.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        min=0.001,
        help="Open loop: requests a second, sent when they are due whatever the answers do.",
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option("--concurrency", "-c", min=1, help="Closed loop: clients. Default: 1."),
]
Connections = Annotated[
    int, typer.Option(min=1, help="Open loop: at most so many requests in flight.")
]
Duration = Annotated[
    float | None, typer.Option(min=0.001, help="Seconds after the warm-up. Default: 10.")
]
Count = Annotated[
    int | None, typer.Option(min=1, help="End after so many requests, with or without --duration.")
]
Warmup = Annotated[float, typer.Option(min=0, help="Seconds before anything is counted.")]
Bodies = Annotated[
    list[Path] | None,
    typer.Option(
        "--body",
        exists=True,
        dir_okay=False,
        help="File with a request's body (gRPC: a ModelInferRequest). Several are sent in turn.",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME[:TYPE]=SIZES",
        help="Size of an input made up, like IN=1,16; with types (IN:FP32=1,16) for all inputs "
        "the model's metadata is not asked for.",
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", metavar="NAME:VALUE", help="Header or gRPC metadata to send."),
]
Compare = Annotated[
    bool,
    typer.Option("--compare", help="Answers that differ from a body's first good one are wrong."),
]
ClientMeant = Annotated[
    bool, typer.Option("--expect-client-errors", help="4xx are on purpose: not lost.")
]
RefusedMeant = Annotated[
    bool, typer.Option("--expect-refusals", help="More is offered than can be done: not lost.")
]
MaxLost = Annotated[
    int | None, typer.Option(min=0, help="Exit code 1 when more requests are lost.")
]
MaxP99 = Annotated[
    float | None, typer.Option(min=0, help="Exit code 1 when p99 exceeds so many milliseconds.")
]
JsonTo = Annotated[
    Path | None, typer.Option("--json", dir_okay=False, help="Write every figure to this file.")
]
HtmlTo = Annotated[
    Path | None, typer.Option("--html", dir_okay=False, help="Write a report with plots here.")
]
Speak = Annotated[Protocol | None, typer.Option(help="Default: the URL's, else http.")]
Pool = Annotated[
    str, typer.Option(metavar="NAMESPACE/NAME", help="Pool, where several serve the model.")
]
Version = Annotated[str, typer.Option("--model-version", help="Version; default: the one served.")]
Follow = Annotated[Arrivals, typer.Option(help="How an open loop's requests follow.")]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds for one answer.")]
HttpPath = Annotated[str, typer.Option("--path", help="HTTP path instead of the model's.")]
Binary = Annotated[bool, typer.Option("--binary", help="Tensors as bytes, not JSON.")]
Seed = Annotated[int, typer.Option(help="Of made up values and Poisson arrivals.")]


@app.command()
def loadtest(
    model: Model = "",
    *,
    url: Url = "",
    protocol: Speak = None,
    pool: Pool = "",
    version: Version = "",
    rate: Rate = None,
    arrivals: Follow = Arrivals.CONSTANT,
    concurrency: Concurrency = None,
    connections: Connections = _OPEN_CONNECTIONS,
    duration: Duration = None,
    count: Count = None,
    warmup: Warmup = 0.0,
    timeout: Timeout = 30.0,
    body: Bodies = None,
    path: HttpPath = "",
    shape: Shapes = None,
    binary: Binary = False,
    header: Headers = None,
    seed: Seed = 1,
    compare: Compare = False,
    client_meant: ClientMeant = False,
    refused_meant: RefusedMeant = False,
    max_lost: MaxLost = None,
    max_p99: MaxP99 = None,
    json_to: JsonTo = None,
    html_to: HtmlTo = None,
) -> None:
    """Send load to a model and measure every answer.

    With --rate an open loop: latency counts from the time at which a request was due. Else a
    closed loop of --concurrency clients. Lost are timeouts, broken connections, wrong answers,
    and all statuses but 2xx; refusals and 4xx too, unless they are expected. Ctrl-C ends early
    and reports what there is.
    """
    if rate is not None and concurrency is not None:
        raise InputError("--rate makes an open loop, --concurrency a closed one: give one of them")
    demands = Demands(
        max_lost=max_lost,
        max_p99_ms=max_p99,
        client_meant=client_meant,
        refused_meant=refused_meant,
    )
    seconds = 10.0 if duration is None and count is None else duration
    limits = Limits(duration_s=seconds, count=count, warmup_s=warmup)
    server = server_of(url, protocol, model, version, pool, timeout)
    asked = Asked(server, path, body or [], shape or [], header or [], binary=binary, seed=seed)
    pace = Pace(rate, arrivals, connections if rate is not None else concurrency or 1, limits)
    _conclude(_measured(asked, pace, demands, compare=compare), json_to, html_to)


def _measured(asked: Asked, pace: Pace, demands: Demands, *, compare: bool) -> Result:
    # The event loop and both clients take half a second to load: other commands need not wait.
    from tidegate_cli.loadtest import run, sending  # noqa: PLC0415

    plan = run.Plan(
        target=asked.server.url(asked.path),
        protocol=asked.server.protocol,
        payloads=sending.payloads(asked),
        rate=pace.rate,
        arrivals=pace.arrivals,
        seed=asked.seed,
        connections=pace.connections,
        limits=pace.limits,
        timeout_s=asked.server.timeout_s,
        demands=demands,
    )
    return run.run(plan, lambda: sending.client(asked, compare=compare))


def _conclude(result: Result, json_to: Path | None, html_to: Path | None) -> None:
    """Print, write, and end with 1 for what was demanded and is not so."""
    print("\n".join(lines(result)))
    if json_to is not None:
        _write(json_to, json.dumps(document(result), indent=1) + "\n")
    if html_to is not None:
        _write(html_to, html(result))
    if result.violated:
        raise typer.Exit(1)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error
