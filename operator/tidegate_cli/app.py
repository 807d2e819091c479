"""The commands. Each gathers, lets core/ decide, asks, prints."""

import hashlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from tidegate_api import names
from tidegate_api.digest import folder_digest
from tidegate_cli import offline, output, rollouts
from tidegate_cli.core import show, tensors
from tidegate_cli.errors import CommandError, InputError
from tidegate_cli.loadtest import command as loadtest
from tidegate_cli.server import Protocol, server_of

app = typer.Typer(
    name="tidegate",
    help="Roll out models, look at pools and workers, and ask them. Also `kubectl tidegate`.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(rollouts.app)
app.add_typer(offline.app)
app.add_typer(loadtest.app)

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="NAME=VALUE",
        help="Value of an input: text for BYTES, JSON for numbers, @FILE for a file's bytes, "
        "@- for standard input. Give a name again to add a row.",
    ),
]
Url = Annotated[
    str,
    typer.Option(
        envvar="TIDEGATE_URL",
        help="Router (or Triton) as HOST:PORT or URL. Default: localhost, 8000 for HTTP and 8001 "
        "for gRPC.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for an answer.")]


@app.command()
def infer(
    model: Model,
    *,
    given: Inputs = None,
    url: Url = "",
    protocol: Annotated[
        Protocol | None, typer.Option(help="Default: the URL's, else http.")
    ] = None,
    pool: Annotated[
        str, typer.Option(metavar="NAMESPACE/NAME", help="Pool, where several serve the model.")
    ] = "",
    model_version: Annotated[str, typer.Option(help="Version; default: the one served.")] = "",
    timeout: Timeout = 30.0,
    as_json: Json = False,
) -> None:
    """Run one inference and print its outputs.

    Data types and shapes come from the model's metadata.
    """
    from tidegate_cli import client  # noqa: PLC0415  # 0.6 s that other commands need not wait for

    server = server_of(url, protocol, model, model_version, pool, timeout)
    values = [_given(argument) for argument in given or []]
    request = tensors.plan(client.inputs(server), values)
    began_s = time.perf_counter()
    outputs = client.infer(server, request)
    took_ms = (time.perf_counter() - began_s) * 1000
    if as_json:
        document = {"model": model, "outputs": [show.output_json(one) for one in outputs]}
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    output.print_table(show.OUTPUT_COLUMNS, [show.output_row(one) for one in outputs])
    print(f"{took_ms:.1f} ms over {server.protocol} from {server.address}", file=sys.stderr)


@app.command()
def workers(
    admin: Annotated[
        str, typer.Option(envvar="TIDEGATE_ADMIN", help="Admin port of a router as HOST:PORT.")
    ] = f"localhost:{names.PORT_ROUTER_ADMIN}",
    timeout: Timeout = 5.0,
    as_json: Json = False,
) -> None:
    """List the workers that a router knows, with their scores and load."""
    from tidegate_cli import client  # noqa: PLC0415  # 0.6 s that other commands need not wait for

    found = client.workers(admin, timeout)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    output.print_table(show.WORKER_COLUMNS, show.worker_rows(found))


@app.command()
def digest(
    path: Annotated[Path, typer.Argument(exists=True, help="A model's file or folder.")],
) -> None:
    """Print the sha256 that `source.sha256` of a model expects.

    Of a folder it is that of its listing: find . -type f -print0 | LC_ALL=C sort -z |
    xargs -0 sha256sum | sha256sum
    """
    print(_digest(path))


@app.command()
def version() -> None:
    """Print the version of this command."""
    print(f"tidegate {importlib.metadata.version('tidegate')}")


def _given(argument: str) -> tensors.Given:
    name, value = tensors.split(argument)
    if not value.startswith("@"):
        return tensors.Given(name, text=value)
    try:
        content = sys.stdin.buffer.read() if value == "@-" else Path(value[1:]).read_bytes()
    except OSError as error:
        raise InputError(f"--input {argument}: {error.strerror}: {value[1:]}") from error
    return tensors.Given(name, content=content)


def _digest(path: Path) -> str:
    if path.is_file():
        return _file_digest(path)
    files = (file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    return folder_digest({file.relative_to(path).as_posix(): _file_digest(file) for file in files})


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def run() -> int:
    """Run the command line; the exit code is 1 for what went wrong, 2 for wrong usage."""
    try:
        app()
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
