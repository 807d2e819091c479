"""A few thousand seeded inputs of each fuzz target; `make fuzz` makes a million of each."""

import importlib.util
from pathlib import Path

import pytest

_RUN = Path(__file__).parents[2] / "fuzz" / "run.py"
_SPEC = importlib.util.spec_from_file_location("fuzz_run", _RUN)
run = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(run)
MODULES = {target: run.load(target) for target in run.TARGETS}  # importing is no test's time


@pytest.mark.parametrize("target", run.TARGETS)
def test_no_input_breaks_what_reads_it(target):
    module = MODULES[target]
    made = run.seeded(module, runs=3000, seconds=4.0, seed=7)
    assert made > len(module.SEEDS)
