import json
import re
import xml.etree.ElementTree as ET  # our own output
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_cli.core.loadtest import svg
from tidegate_cli.core.loadtest.outcome import Outcome
from tidegate_cli.core.loadtest.report import html
from tidegate_cli.core.loadtest.result import Demands, Run, document, lines, result_of
from tidegate_cli.core.loadtest.tally import Answered, Tally

OK = Answered(Outcome.OK, "", "r1", "w1")
CANARY = Answered(Outcome.OK, "", "r2", "w2")
REFUSED = Answered(Outcome.REFUSED, "503 saturated")
BROKEN = Answered(Outcome.RESET, "broken <here>")


def tallied():
    tally = Tally()
    for at in range(300):
        tally.add(at / 100, 0.001 + at / 1e5, CANARY if at % 10 == 0 else OK)
    tally.add(1.5, 0.05, REFUSED)
    tally.add(2.5, 1.0, BROKEN)
    return tally


def result(tally=None, demands=None, **more):
    given = {
        "target": "http://h:1 <m>", "load": "100 req/s", "began_at_s": 1.5, "counted_s": 3.0,
        "generator_cpu_ratio": 0.5, "unfinished": 0, "interrupted": False, **more,
    }  # fmt: skip
    return result_of(
        Run(tally=tallied() if tally is None else tally, demands=demands or Demands(), **given)
    )


class Strict(HTMLParser):
    """Notes tags that were not closed, and everything that would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)
        self.fetched += [value for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        """An empty element closes itself."""


def test_figures_are_those_of_the_tally():
    found = result()
    assert found.requests == 302
    assert found.throughput == pytest.approx(100)
    assert found.outcomes == {Outcome.OK: 300, Outcome.REFUSED: 1, Outcome.RESET: 1}
    assert found.lost == 2
    assert found.latency_ms["p50"] == pytest.approx(2.5, rel=0.01)
    assert found.latency_ms["max"] == pytest.approx(3.99, rel=1e-6)
    assert found.refused_ms["p99"] == pytest.approx(50, rel=0.001)
    assert found.failed_ms["max"] == pytest.approx(1000)


def test_answers_are_counted_by_who_gave_them():
    tally = tallied()
    assert tally.revisions == {"r1": 270, "r2": 30}
    assert tally.workers == {"w1": 270, "w2": 30}
    assert tally.details == {"503 saturated": 1, "broken <here>": 1}


def test_the_latest_second_is_the_last_that_ended():
    assert tallied().latest.outcomes == {Outcome.OK: 100, Outcome.REFUSED: 1}
    assert Tally().latest.outcomes == {}


@pytest.mark.parametrize(
    ("demands", "violated"),
    [
        pytest.param(Demands(), 0, id="nothing demanded"),
        pytest.param(Demands(max_lost=2), 0, id="as many lost as allowed"),
        pytest.param(Demands(max_lost=1), 1, id="one more lost"),
        pytest.param(Demands(max_lost=1, refused_meant=True), 0, id="refusals were meant"),
        pytest.param(Demands(max_p99_ms=4.1), 0, id="fast enough"),
        pytest.param(Demands(max_p99_ms=3.0), 1, id="too slow"),
        pytest.param(Demands(max_lost=0, max_p99_ms=3.0), 2, id="both"),
    ],
)
def test_demands_are_judged(demands, violated):
    assert len(result(demands=demands).violated) == violated


def test_a_run_without_answers_meets_no_demand():
    found = result(Tally(), Demands(max_p99_ms=5))
    assert found.violated == ("no request was answered", "no good answer, so no p99")
    assert found.latency_ms == {}


def test_doubts_are_told_where_the_generator_may_be_the_bound():
    tally = tallied()
    tally.late.add(9000)
    assert len(result(tally, generator_cpu_ratio=0.91).doubts) == 2
    assert result(generator_cpu_ratio=0.9).doubts == ()


def test_json_has_every_second_and_the_histogram():
    found = json.loads(json.dumps(document(result())))
    assert [one["ok"] for one in found["series"]] == [100, 100, 100]
    assert sum(count for _, count in found["histogram_us"]) == 300
    assert found["outcomes"] == {"ok": 300, "refused": 1, "reset": 1}
    assert found["revisions"] == {"r1": 270, "r2": 30}
    assert found["began_at"] == 1.5


def test_lines_say_what_matters():
    text = "\n".join(lines(result(demands=Demands(max_lost=0), unfinished=3)))
    for words in ("302 answers", "2 lost", "violated:", "3 requests in flight", "r2 30"):
        assert words in text


@pytest.mark.parametrize("tally", [tallied(), Tally()], ids=["answers", "no answers"])
def test_the_report_is_one_well_formed_file_that_fetches_nothing(tally):
    text = html(result(tally))
    parser = Strict()
    parser.feed(text)
    assert parser.open == []
    assert parser.fetched == []
    assert "<script" not in text
    assert "<m>" not in text
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)  # noqa: S314  # made a line above


def test_the_report_draws_the_three_plots():
    text = html(result())
    titles = ["Latency by percentile", "Latency over time", "Answers by second and outcome"]
    assert [title for title in titles if title in text] == titles
    assert text.count("<svg") == 3


def test_one_answer_is_enough_for_a_report():
    tally = Tally()
    tally.add(0.1, 0.0, OK)
    assert html(result(tally)).count("<svg") == 3


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_round_ticks_cover_the_most_with_few_marks(most):
    ticks = svg.round_ticks(most)
    assert ticks[0].at == 0
    assert ticks[-1].at >= most * 0.999
    assert 2 <= len(ticks) <= 12


@given(st.floats(min_value=1e-3, max_value=1e4), st.floats(min_value=1, max_value=1e3))
def test_log_ticks_enclose_their_values(low, factor):
    ticks = svg.log_ticks(low, low * factor)
    assert 10 ** ticks[0].at <= low * 1.001
    assert 10 ** ticks[-1].at >= low * factor * 0.999


def test_the_ends_of_the_ticks_are_the_ends_of_the_frame():
    axes = svg.Axes(
        title="", x_label="", y_label="", x_ticks=svg.round_ticks(10), y_ticks=svg.round_ticks(1)
    )
    x, y = svg.scales(axes)
    assert x(0) < x(5) < x(10)
    assert y(1) < y(0.5) < y(0)


def test_bars_name_what_they_show():
    text = svg.horizontal_bars("Speed", "a second", [("ours", 30.0, ""), ("a<b", 10.0, "late")])
    ET.fromstring(text)  # noqa: S314  # made a line above
    for words in ("ours", "a&lt;b", "30", "10 late"):
        assert words in text
