"""Steps with their time on standard output: plain lines, so that logs and terminals agree."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a step, then its time; a failing step says so before the error."""
    began = time.monotonic()
    say(f"==> {what} ...")
    try:
        yield
    except BaseException:
        print(f"==> {what}: FAILED after {time.monotonic() - began:.1f} s", file=sys.stderr)
        raise
    say(f"==> {what}: {time.monotonic() - began:.1f} s")
