"""Fuzz what reads bytes of strangers: `run.py [--runs N] [--seconds S] [TARGET ...]`.

Each target is a file fuzz_TARGET.py with SEEDS, MAX_BYTES and `check(data)`, which raises where an
invariant is broken. Guided by coverage (atheris) where that is installed, else by seeded random
mutations. An input that breaks something is written to .bench/fuzz/TARGET/; figures go to
.bench/fuzz.json. Exit status 1: something was found, or fewer runs were made than asked for.
"""

import argparse
import importlib
import importlib.util
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
TARGETS = tuple(sorted(one.stem.removeprefix("fuzz_") for one in HERE.glob("fuzz_*.py")))
_BENCH = HERE.parents[1] / ".bench"
_DONE = re.compile(r"(?:Done|done) (\d+) (?:runs )?in (\d+(?:\.\d+)?) second")
_LAST = re.compile(r"^#(\d+)\s", re.MULTILINE)
_FEATURES = re.compile(r"\bcov: (\d+) ft: (\d+) corp: (\d+)")
_RAISED = re.compile(r"^([A-Za-z_.]*(?:Error|Exception|Fault)\b.*)$", re.MULTILINE)
_WATCHED = {  # whose branches guide the search; watching all of the router halves the speed
    "head": [
        "tidegate_router.core.head",
        "tidegate_router.core.chunks",
        "tidegate_router.core.path",
    ],
    "table": ["tidegate_api.routetable", "tidegate_router.core.table"],
    "relay": ["tidegate_router.core.h2", "tidegate_router.h2", "tidegate_router.core.protowire"],
}
_MOST_S = 10 * 365 * 24 * 3600


def load(target: str) -> ModuleType:
    """Return a target's module."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{target}", HERE / f"fuzz_{target}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mutate(seeds: list[bytes], draw: random.Random, max_bytes: int) -> bytes:
    """Return a seed with up to six changes."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randrange(7)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(6):
            case 0:
                data[at : at + 1] = bytes((draw.randrange(256),))
            case 1:
                del data[at : at + draw.randrange(1, 9)]
            case 2:
                data[at:at] = data[at : at + draw.randrange(1, 33)]
            case 3:
                other = draw.choice(seeds)
                data[at:] = other[draw.randrange(len(other) + 1) :]
            case 4:
                data[at:at] = draw.choice((b"\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b"\xff"))
            case _:
                data[at : at + 1] = bytes(((data[at] if at < len(data) else 0) ^ 1 << at % 8,))
    return bytes(data[:max_bytes])


def seeded(module: ModuleType, runs: int, seconds: float, seed: int = 1) -> int:
    """Check the seeds, then mutations of them; return how many inputs were checked."""
    draw, until_s = random.Random(seed), time.monotonic() + seconds
    for data in module.SEEDS:
        _checked(module.check, data)
    count = len(module.SEEDS)
    while count < runs and time.monotonic() < until_s:
        _checked(module.check, mutate(module.SEEDS, draw, module.MAX_BYTES))
        count += 1
    return count


def _checked(check: Callable[[bytes], None], data: bytes) -> None:
    try:
        check(data)
    except BaseException as error:
        error.add_note(f"input: {data.hex()}")
        raise


def _child(target: str, engine: str, runs: int, seconds: int) -> None:
    """Run one target in this process, which may end with it."""
    folder = _BENCH / "fuzz" / target
    if engine == "seeded":
        began_s = time.monotonic()
        made = seeded(load(target), runs, seconds)
        print(f"Done {made} runs in {time.monotonic() - began_s:.1f} second(s)")
        return
    atheris = importlib.import_module("atheris")
    include = _WATCHED.get(target, ["tidegate_router", "tidegate_api"])
    with atheris.instrument_imports(include=include):
        module = load(target)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(module.SEEDS):
        (corpus / f"seed-{number:03}").write_bytes(data)
    options = [
        f"-runs={runs}", f"-max_total_time={seconds}", f"-max_len={module.MAX_BYTES}", "-seed=1",
        f"-artifact_prefix={folder}/", "-rss_limit_mb=1024", "-timeout=10", "-print_final_stats=1",
    ]  # fmt: skip

    def check(data: bytes) -> None:
        try:
            module.check(data)
        except BaseException:
            (folder / "found").write_bytes(data)
            raise

    atheris.Setup([sys.argv[0], *options, str(corpus)], check)
    atheris.Fuzz()


def fuzz(target: str, engine: str, runs: int, seconds: int) -> dict[str, object]:
    """Run one target in a process of its own and return what came of it."""
    arguments = ["--engine", engine, "--runs", str(runs), "--seconds", str(seconds)]
    log_file = _BENCH / "fuzz" / f"{target}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    with log_file.open("w") as log:
        ended = subprocess.run(
            [sys.executable, __file__, "--child", *arguments, target],
            check=False, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    wall_s = time.monotonic() - began_s
    text = log_file.read_text(errors="replace")
    done, last = _DONE.search(text), _LAST.findall(text)
    made = int(done[1]) if done else int(last[-1]) if last else 0
    features = _FEATURES.findall(text)
    raised = _RAISED.findall(text)
    findings = (raised[-1:] or [f"exit status {ended.returncode}"]) if ended.returncode else []
    return {
        "target": target, "engine": engine, "runs": made, "seconds": round(wall_s, 1),
        "executions_per_s": round(made / wall_s, 1),
        "features": int(features[-1][1]) if features else None, "findings": findings,
    }  # fmt: skip


def main() -> int:
    """Run the targets one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000, help="of each target")
    parser.add_argument("--seconds", type=int, default=_MOST_S, help="at most, of each target")
    parser.add_argument("--engine", choices=("atheris", "seeded"), default=_engine())
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("target", nargs="*", default=TARGETS, help=", ".join(TARGETS))
    given = parser.parse_args()
    if given.child:
        _child(given.target[0], given.engine, given.runs, given.seconds)
        return 0
    results = []
    for target in given.target:
        result = fuzz(target, given.engine, given.runs, given.seconds)
        results.append(result)
        print(" ".join(f"{key}={value}" for key, value in result.items()), flush=True)
        _write(result)
    short = [one["target"] for one in results if one["runs"] < given.runs]
    found = sum(len(one["findings"]) for one in results)
    print(f"targets={len(results)} findings={found} fewer_runs_than_asked={','.join(short) or 0}")
    return 1 if found or short else 0


def _engine() -> str:
    return "atheris" if importlib.util.find_spec("atheris") else "seeded"


def _write(result: dict[str, object]) -> None:
    """Put a target's latest figures beside the others'."""
    path = _BENCH / "fuzz.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {result["target"]: result}, indent=2, sort_keys=True))


if __name__ == "__main__":
    sys.exit(main())
