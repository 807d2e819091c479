"""A sample of the simulation; all 200 seeds are run by tests/bench/bench_rollout_analysis.py."""

import pytest

from tidegate_e2e.analysis_simulation import Simulation, load

SETTINGS, SEEDS = load()


def test_there_are_200_different_seeds():
    assert len(set(SEEDS)) == 200


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_a_good_canary_is_promoted(seed):
    result = Simulation("good", seed, SETTINGS).run()
    assert (result.end, result.message) == ("promoted", "")


@pytest.mark.parametrize("seed", SEEDS[:4])
@pytest.mark.parametrize(
    ("kind", "words"), [("slow", "p95"), ("erring", "success rate"), ("wrong", "disagreement")]
)
def test_a_bad_canary_fails_at_the_first_interval(kind, words, seed):
    result = Simulation(kind, seed, SETTINGS).run()
    assert (result.end, result.intervals) == ("failed", 1)
    assert words in result.message
