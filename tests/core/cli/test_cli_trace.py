import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api import histogram as tg1
from tidegate_cli.core.trace import latency_shares, moment_at, parse_trace
from tidegate_cli.errors import InputError

FIRST = {"at": "0s", "rate": 100, "canary": {"p95": "80ms", "errors": 0.01}}


def test_what_an_entry_does_not_say_stays_as_it_was():
    rows = [FIRST, {"at": "1m", "canary": {"p95": "1s"}}, {"at": "2m", "rate": 5}]
    first, second, third = parse_trace("t", rows)
    assert (first.canary.p95_s, first.canary.errors) == (0.08, 0.01)
    assert (second.rate, second.canary.p95_s, second.canary.errors) == (100, 1.0, 0.01)
    assert (third.rate, third.canary) == (5, second.canary)


def test_a_moment_holds_until_the_next():
    moments = parse_trace("t", [FIRST, {"at": "1m", "rate": 5}])
    assert [moment_at(moments, at_s).rate for at_s in (0, 59.9, 60, 9999)] == [100, 100, 5, 5]


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "a first entry with at: 0s"),
        ([{**FIRST, "at": "1s"}], "a first entry with at: 0s"),
        ([{"at": "0s"}], "a rate above 0"),
        ([FIRST, FIRST], "1.at: expected later than 0s"),
        ([{**FIRST, "canry": {}}], "0.canry: "),
        ([{**FIRST, "canary": {"p99": "1s"}}], "0.canary.p99: "),
        ([{**FIRST, "canary": {"errors": 2}}], "0.canary.errors: "),
        ([{**FIRST, "at": "soon"}], "0.at: "),
        ({"at": "0s"}, "the document: "),
        ("0s", "the document: "),
        (None, "the document: "),
    ],
)
def test_a_trace_that_is_none_names_the_entry_and_the_field(document, why):
    with pytest.raises(InputError) as caught:
        parse_trace("trace.yaml", document)
    assert str(caught.value).startswith("trace.yaml: ")
    assert why in str(caught.value)


@given(p95_ms=st.floats(min_value=0.1, max_value=10_000))
def test_the_latencies_have_the_p95_that_was_asked_for(p95_ms):
    shares = latency_shares(p95_ms / 1000)
    assert sum(share for _, share in shares) == pytest.approx(1.0, abs=1e-6)
    counts = {bucket: round(share * 1_000_000) for bucket, share in shares}
    assert tg1.quantile_s(counts, 0.95) * 1000 == pytest.approx(p95_ms, rel=0.1)
