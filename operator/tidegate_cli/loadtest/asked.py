"""What the options ask for, before anything is loaded or connected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate_cli.core.loadtest.schedule import Arrivals, Limits
from tidegate_cli.server import Server


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to ask and for what; values as they were typed."""

    server: Server
    path: str
    bodies: Sequence[Path]
    shapes: Sequence[str]
    headers: Sequence[str]
    binary: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `rate` requests a second, or None for a closed loop of `connections` clients."""

    rate: float | None
    arrivals: Arrivals
    connections: int
    limits: Limits
