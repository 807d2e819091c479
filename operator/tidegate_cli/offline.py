"""The commands that need no cluster."""

import sys
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import yaml
from typer.completion import shell_complete

from tidegate_api.quantity import duration_s
from tidegate_cli.core import lint as linting
from tidegate_cli.core import simulate as simulation
from tidegate_cli.core.documents import span
from tidegate_cli.core.lint import Level, Source
from tidegate_cli.core.trace import parse_trace
from tidegate_cli.errors import InputError

app = typer.Typer(rich_markup_mode=None)
_YAML = (".yaml", ".yml", ".json")


class Shell(StrEnum):
    """Shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


Rate = Annotated[
    float | None,
    typer.Option(min=0, help="Requests per second of the pool: warns of steps too short for it."),
]


@app.command()
def lint(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="YAML or JSON, a folder, or - for stdin.")
    ],
    *,
    rate: Rate = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
) -> None:
    """Check InferencePools and ModelRollouts by the rules of the API server and the operator.

    Also the template of each rollout merged over its pool, where that is among the files.
    Other kinds are left alone. Exit code 1 with an error. With a cluster: kubectl apply
    --dry-run=server checks all but the merge.
    """
    every = [*_documents(files)]
    sources = [source for source in every if linting.is_ours(source.document)]
    findings = [*linting.lint(sources, rate)]
    for finding in findings:
        print(finding)
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = len(findings) - errors
    skipped = len(every) - len(sources)
    others = f", {skipped} of other kinds left alone" if skipped else ""
    counts = f"{len(sources)} objects: {errors} errors, {warnings} warnings{others}"
    print(counts, file=sys.stderr)
    if errors or (strict and warnings):
        raise typer.Exit(1)


def _documents(files: Iterable[str]) -> Iterator[Source]:
    for file in files:
        for path in _paths(file):
            yield from parsed(str(path), _content(path))


def _paths(file: str) -> list[Path]:
    path = Path(file)
    if not path.is_dir():
        return [path]
    return sorted(one for one in path.rglob("*") if one.suffix in _YAML and one.is_file())


def _content(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from error


def _yaml(place: str, content: str) -> list[object]:
    try:
        return [*yaml.safe_load_all(content)]
    except yaml.YAMLError as error:
        raise InputError(f"{place}: no YAML: {' '.join(str(error).split())}") from error


def parsed(place: str, content: str) -> Iterator[Source]:
    """Yield each YAML document that is an object, lists of objects taken apart."""
    documents = _yaml(place, content)
    for index, document in enumerate(documents):
        where = place if len(documents) == 1 else f"{place}, document {index + 1}"
        if isinstance(document, dict):
            items = document.get("items") if document.get("kind") == "List" else None
            for item in items if isinstance(items, list) else [document]:
                yield Source(where, item)
        elif document is not None:
            raise InputError(f"{where}: expected an object with apiVersion and kind")


@app.command()
def simulate(
    file: Annotated[str, typer.Argument(help="YAML or JSON with one ModelRollout, or -.")],
    *,
    trace: Annotated[str, typer.Option(help="The metrics to run it on: YAML or JSON.")],
    workers: Annotated[int, typer.Option(min=1, help="Workers of the pool.")] = 4,
    start: Annotated[str, typer.Option(help="From a worker's creation to Ready.")] = "30s",
    promote: Annotated[
        bool, typer.Option("--promote", help="Promote at pauses without duration.")
    ] = False,
    limit: Annotated[str, typer.Option(help="Simulated time after which to give up.")] = "6h",
) -> None:
    """Run a rollout's steps and analysis on a metric trace, with the operator's own decisions.

    The trace is a list; values hold until the next entry, shares are 0..1:
    [{at: 0s, rate: 200, stable: {p95: 80ms}, canary: {p95: 85ms, errors: 0.002}},
    {at: 4m, canary: {p95: 400ms, clientErrors: 0, disagreement: 0, ready: true, failure: ""},
    prometheus: {NAME: 1.0}}]. It holds expected values, without noise.
    Exit code 0: promoted, 1: rolled back or stalled, 3: waits for promote or is unfinished.
    """
    found = [one for path in _paths(file) for one in parsed(str(path), _content(path))]
    rollout = linting.only_rollout(file, found)
    content = _yaml(trace, _content(Path(trace)))
    moments = parse_trace(trace, content[0] if len(content) == 1 else content)
    setup = simulation.Setup(
        begun_s=time.time(),
        workers=workers,
        start_s=_duration_s("--start", start),
        promote=promote,
        most_s=_duration_s("--limit", limit),
    )
    for event in simulation.simulate(rollout, moments, setup):
        if isinstance(event, simulation.End):
            print(event)
            raise typer.Exit(simulation.EXIT_CODES[event.verdict])
        print(f"{span(event.at_s):>8}  {event.text}", flush=True)


def _duration_s(option: str, value: str) -> float:
    try:
        return duration_s(value)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


@app.command()
def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(help="Which shell.")],
) -> None:
    """Print the script that completes this command in a shell.

    For example: source <(tidegate completion bash)
    """
    raise typer.Exit(
        shell_complete(
            context.find_root().command, {}, "tidegate", "_TIDEGATE_COMPLETE", f"source_{shell}"
        )
    )
