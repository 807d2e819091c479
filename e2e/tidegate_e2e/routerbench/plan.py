"""How long a bench measures."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Rounds, and the seconds of each measurement."""

    rounds: int = 5
    seconds: int = 5


FULL, QUICK = Plan(), Plan(rounds=2, seconds=3)
