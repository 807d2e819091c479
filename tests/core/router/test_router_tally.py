"""Counts of the last seconds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_router.core.tally import Tally


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=80))
def test_a_tally_knows_the_last_ten_seconds_and_all(steps):
    tally, now_s, seen = Tally(), 100.0, []
    for gap_s, good in steps:
        now_s += gap_s
        (tally.good if good else tally.fail)(now_s)
        seen.append((int(now_s), good))
        lately = [good for second, good in seen if second > int(now_s) - 10]
        assert tally.lately(now_s) == (sum(lately), len(lately) - sum(lately))
        goods = sum(good for _, good in seen)
        assert tally.ever() == (goods, len(seen) - goods)
