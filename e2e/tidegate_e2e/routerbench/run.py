"""The bench as a whole: which rows, in which order, and what is written."""

import datetime as dt
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tidegate_e2e.routerbench import (
    behaviour,
    costs,
    grpc,
    memory,
    peers,
    render,
    scaling,
    speed,
    triton,
)
from tidegate_e2e.routerbench.figures import Book
from tidegate_e2e.routerbench.machine import Bench
from tidegate_e2e.routerbench.plan import FULL, QUICK, Plan

Row = Callable[[Bench, Plan, Book], None]
ROWS: Mapping[str, Row] = {
    "http": speed.rows,
    "grpc": grpc.rows,
    "triton": triton.rows,
    "feature_costs": costs.rows,
    "two_processes": scaling.rows,
    "thousand_workers": memory.thousand_workers,
    "idle_connections": memory.idle_connections,
    "large_bodies": memory.large_bodies,
    "slow_worker": behaviour.slow_worker,
    "overload": behaviour.overload,
}


def bench(root: Path, *, quick: bool, only: Sequence[str]) -> int:
    """Measure; 1 when a row could not be measured."""
    book = _book(root / ".bench" / "router.json", keep=bool(only))
    book.document["machine"] = {"cores": os.cpu_count(), "cpu": _processor()}
    book.document["versions"] = dict(peers.versions())
    print("bench:", json.dumps(book.document["versions"]), flush=True)
    plan = QUICK if quick else FULL
    book.document |= {"rounds": plan.rounds, "seconds": plan.seconds, "date": _today()}
    failed = 0
    for name in only or [*ROWS]:
        failed += not _measured(name, plan, book)
    book.write()
    print(book.last_line())
    return 1 if failed else 0


def docs(root: Path) -> int:
    """Write the section of docs/benchmarks.md and its picture from the last run's figures."""
    file = root / ".bench" / "router.json"
    if not file.exists():
        print(f"bench: {file} is missing: make bench-router", file=sys.stderr)
        return 1
    found = json.loads(file.read_text())
    page = root / "docs" / "benchmarks.md"
    page.write_text(render.placed(page.read_text(), found))
    image = root / "docs" / render.IMAGE
    image.parent.mkdir(exist_ok=True)
    image.write_text(render.picture(found))
    return 0


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()


def _measured(name: str, plan: Plan, book: Book) -> bool:
    began_s = time.monotonic()
    book.forget(name)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        own = Bench(Path(folder))
        try:
            ROWS[name](own, plan, book)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            print(f"bench: {name} could not be measured: {error}", file=sys.stderr, flush=True)
            book.row(name, {"not_measured": str(error)})
            return False
        finally:
            own.close()
    print(f"bench: {name} took {time.monotonic() - began_s:.0f} s", flush=True)
    return True


def _book(file: Path, *, keep: bool) -> Book:
    """Return a new book, or with `keep` what was measured before with rows to be replaced."""
    return Book(file, json.loads(file.read_text()) if keep and file.exists() else {})


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
