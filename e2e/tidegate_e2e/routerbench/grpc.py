"""The gRPC rows: a bench of its own, whose figures become part of ours."""

import json
import subprocess
import sys
from pathlib import Path

from tidegate_e2e.routerbench.figures import Book, Json
from tidegate_e2e.routerbench.machine import Bench
from tidegate_e2e.routerbench.plan import Plan

_ROOT = Path(__file__).parents[3]
_SCRIPT = _ROOT / "tests" / "bench" / "bench_router_grpc.py"


def rows(_bench: Bench, plan: Plan, book: Book) -> None:
    """Run it and take its figures over; its rows stay together under `grpc`."""
    if not _SCRIPT.exists():
        raise RuntimeError(f"{_SCRIPT.name} is missing")
    command = [sys.executable, str(_SCRIPT)]
    command += ["--rounds", str(plan.rounds), "--seconds", str(plan.seconds)]
    done = subprocess.run(command, check=False)
    if done.returncode:
        raise RuntimeError(f"{_SCRIPT.name} ended with {done.returncode}")
    merge(book, json.loads((_ROOT / ".bench" / "router_grpc.json").read_text()))


def merge(book: Book, found: dict[str, Json]) -> None:
    """Take over what the gRPC bench wrote: {"figures": {key: number}, "rows": {...}}."""
    figures = _mapping(found, "figures")
    if not figures:
        raise RuntimeError("router_grpc.json: expected figures")
    for name, value in figures.items():
        if isinstance(value, int | float):
            book.figure(name, float(value))
    book.row("grpc", _mapping(found, "rows"))


def _mapping(found: dict[str, Json], name: str) -> dict[str, Json]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}
