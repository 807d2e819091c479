"""How often analysis fails a good canary, and how fast it fails a bad one (tier S).

200 committed seeds per kind. Needs no cluster. Writes .bench/rollout-analysis.json and ends with
one key=value line; ends with 1 when a good canary failed.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import get_args

from tidegate_e2e.analysis_simulation import Kind, Result, Simulation, load

OUTPUT = Path(__file__).parents[2] / ".bench/rollout-analysis.json"


def run(kind: Kind, seed: int) -> Result:
    """Simulate one rollout."""
    return Simulation(kind, seed, load()[0]).run()


def figures(results: list[Result]) -> dict[str, int | float | str]:
    """Return the flat figures."""
    found: dict[str, int | float | str] = {"tier": "S"}
    for kind in get_args(Kind):
        mine = [item for item in results if item.kind == kind]
        failed = [item for item in mine if item.end == "failed"]
        found[f"{kind}Rollouts"] = len(mine)
        found[f"{kind}Failed"] = len(failed)
        found[f"{kind}NoData"] = sum(item.end == "no data" for item in mine)
        found[f"{kind}Judgements"] = sum(item.judgements for item in mine)
        if kind != "good":
            found[f"{kind}FailedInFirstInterval"] = sum(r.intervals == 1 for r in failed)
            found[f"{kind}IntervalsMax"] = max((r.intervals for r in failed), default=0)
            found[f"{kind}AttemptsMin"] = min((r.attempts for r in failed), default=0)
    return found


def main() -> int:
    """Run every seed, print what each odd one said, write the figures."""
    _, seeds = load()
    jobs = [(kind, seed) for kind in get_args(Kind) for seed in seeds]
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(run, *zip(*jobs, strict=True), chunksize=5))
    for item in results:
        if (item.kind == "good") != (item.end == "promoted"):
            print(f"{item.kind} {item.seed} at {item.rate}/s: {item.end}: {item.message}")
    found = figures(results)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n")
    print(" ".join(f"{key}={value}" for key, value in found.items()))
    return 1 if found["goodFailed"] else 0


if __name__ == "__main__":
    sys.exit(main())
