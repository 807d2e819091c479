"""Walker's alias method: an index by weight in O(1) per draw, O(n) to build (Vose 1991)."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AliasTable:
    """Index i is drawn with probability weights[i] / sum(weights)."""

    keep: tuple[float, ...]
    other: tuple[int, ...]

    def draw(self, uniform: float) -> int:
        """Return the index that `uniform`, in [0, 1), stands for."""
        scaled = uniform * len(self.keep)
        column = min(int(scaled), len(self.keep) - 1)
        return column if scaled - column < self.keep[column] else self.other[column]


def build(weights: Sequence[float]) -> AliasTable:
    """Build a table from positive weights; ValueError without any."""
    total = sum(weights)
    if not weights or total <= 0:
        raise ValueError(f"an alias table needs positive weights, not {list(weights)[:5]}")
    count = len(weights)
    scaled = [weight * count / total for weight in weights]
    keep, other = [1.0] * count, list(range(count))
    small = [index for index, value in enumerate(scaled) if value < 1]
    large = [index for index, value in enumerate(scaled) if value >= 1]
    while small and large:
        poor, rich = small.pop(), large.pop()
        keep[poor], other[poor] = scaled[poor], rich
        scaled[rich] -= 1 - scaled[poor]
        (small if scaled[rich] < 1 else large).append(rich)
    return AliasTable(tuple(keep), tuple(other))
