"""Progress while a run lasts: a line that is redrawn on a terminal, else a line every 5 s."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from tidegate_cli.core.loadtest.schedule import Limits
from tidegate_cli.core.loadtest.tally import Tally

_PLAIN_S = 5.0


def line(tally: Tally, since_s: float, limits: Limits) -> str:
    """Return the state of a run, `since_s` after its start."""
    counted_s = since_s - limits.warmup_s
    if counted_s < 0:
        return f"warming up, {-counted_s:.0f} s more"
    last = tally.latest
    outcomes = "  ".join(f"{name} {count}" for name, count in sorted(last.outcomes.items()))
    until = "" if limits.duration_s is None else f" of {limits.duration_s:g}"
    return (
        f"{counted_s:.0f}{until} s  last second: {outcomes or 'nothing yet'}  "
        f"p50 {last.latency.quantile_us(0.5) / 1000:.2f} ms  "
        f"p99 {last.latency.quantile_us(0.99) / 1000:.2f} ms"
    )


class Progress:
    """Tells how a run goes, on stderr: stdout has the result."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._console = Console(stderr=True, markup=False, highlight=False)
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True)
            if sys.stderr.isatty()
            else None
        )
        self._told_s = time.monotonic()

    def __enter__(self) -> Self:
        """Take the terminal's last line."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the line back."""
        if self._live is not None:
            self._live.stop()

    def tell(self, tally: Tally, since_s: float) -> None:
        """Tell the state, as often as it is worth a line."""
        if self._live is not None:
            self._live.update(line(tally, since_s, self._limits), refresh=True)
        elif time.monotonic() - self._told_s >= _PLAIN_S:
            self._told_s = time.monotonic()
            print(line(tally, since_s, self._limits), file=sys.stderr, flush=True)
