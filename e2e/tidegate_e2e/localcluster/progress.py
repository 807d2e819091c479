"""Steps with their time on standard output: a spinner on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_console = Console(highlight=False, soft_wrap=True)
_errors = Console(highlight=False, soft_wrap=True, stderr=True)


def say(text: str) -> None:
    """Print one line at once."""
    _console.print(text, markup=False)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a step, then its time; a failing step says so before the error."""
    began = time.monotonic()
    if not _console.is_terminal:
        say(f"==> {what} ...")
    try:
        with _console.status(what):
            yield
    except BaseException:
        _errors.print(f"==> {what}: FAILED after {time.monotonic() - began:.1f} s", markup=False)
        raise
    say(f"==> {what}: {time.monotonic() - began:.1f} s")
