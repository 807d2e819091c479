"""Every router side by side on this machine: speed, memory, behaviour, real Triton.

`--quick`: 2 rounds of 3 s instead of 5 of 5 s. `--only ROW`: one row (again: more of them).
Writes .bench/router.json after each row and ends with one line of key=value. Each router runs on
one core, workers and load on the other; docs/benchmarks.md shows the figures (`--docs` rewrites
its section from .bench/router.json and measures nothing).
"""

import argparse
import sys
from pathlib import Path

from tidegate_e2e.routerbench import run


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", choices=[*run.ROWS], default=[])
    parser.add_argument("--docs", action="store_true")
    found = parser.parse_args()
    root = Path(__file__).parents[2]
    if found.docs:
        return run.docs(root)
    return run.bench(root, quick=found.quick, only=found.only)


if __name__ == "__main__":
    sys.exit(main())
