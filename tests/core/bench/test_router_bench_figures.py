import json

import pytest

from tidegate_e2e.routerbench import render, table
from tidegate_e2e.routerbench.behaviour import recovery_s
from tidegate_e2e.routerbench.figures import Book, Series, spread, throughput_ratio
from tidegate_e2e.routerbench.load import Measured, _read, number

WRK = """Running 2s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  940.00us
     75%    1.10ms
     90%    2.00ms
     99%    1.44s 
  4700 requests in 2.07s, 12.29MB read
  Socket errors: connect 0, read 2, write 0, timeout 14
  Non-2xx or 3xx responses: 5
Requests/sec:  2350.55
"""  # noqa: W291  # wrk's own blank


def measured(rate=100.0, cpu_us=10.0, router_use=0.99, load_use=0.5):
    return Measured(
        rate=rate, p50_ms=1.0, p99_ms=2.0, failed=0, router_cpu_us=cpu_us,
        router_use=router_use, load_use=load_use,
    )  # fmt: skip


def series(*rounds):
    return Series([list(found) for found in rounds])


def test_wrk_is_read():
    found = _read(WRK, 0.047, 1.0, 2.0)
    assert (found.rate, found.p50_ms, found.p99_ms) == pytest.approx((2350.55, 0.94, 1440.0))
    assert found.failed == 21
    assert found.router_cpu_us == pytest.approx(10)
    assert found.load_use == 0.5


def test_wrk_without_figures_is_told():
    with pytest.raises(RuntimeError, match="no figures"):
        _read("unable to connect", None, 0.0, 1.0)


def test_a_round_of_two_measurements_counts_as_their_mean():
    found = series([measured(100), measured(200)], [measured(300)])
    assert found.values("rate") == [150, 300]
    assert found.document()["rate"] == {"median": 225, "min": 150, "max": 300}


def test_direct_has_no_router_figures():
    direct = series([measured(cpu_us=None, router_use=None)])
    assert direct.values("router_cpu_us") == []
    assert not direct.disturbed
    assert "router_cpu_us" not in direct.document()


@pytest.mark.parametrize(
    ("ours", "other", "expected"),
    [
        pytest.param(measured(300), measured(100), ([3.0], "throughput"), id="both saturated"),
        pytest.param(
            measured(300, cpu_us=10), measured(100, cpu_us=50, load_use=0.95), ([5.0], "cpu"),
            id="the load core was the bound",
        ),
        pytest.param(
            measured(300, cpu_us=10, router_use=0.4), measured(100, cpu_us=20), ([2.0], "cpu"),
            id="others had the router's core",
        ),
    ],
)  # fmt: skip
def test_a_ratio_says_what_it_rests_on(ours, other, expected):
    assert throughput_ratio(series([ours]), series([other])) == expected


def test_a_book_is_written_after_each_row_and_read_back(tmp_path):
    book = Book(tmp_path / "b" / "router.json")
    book.ratio("two", [2.0, 1.0, 4.0])
    book.ratio("none", [])
    book.row("r", {"x": spread([1.0])})
    found = json.loads(book.file.read_text())
    assert (found["two"], found["two_min"], found["two_max"]) == (2.0, 1.0, 4.0)
    assert "none" not in found
    assert book.last_line() == "two=2.0 two_max=4.0 two_min=1.0"
    book.forget("r")
    assert book.document["rows"] == {}


def test_a_missing_figure_of_loadtest_is_told():
    assert number({"a": {"b": 3}}, "a", "b") == 3.0
    with pytest.raises(RuntimeError, match=r"no a\.c"):
        number({"a": {"b": 3}}, "a", "c")


@pytest.mark.parametrize(
    ("p99_ms", "expected"),
    [
        pytest.param([10, 10, 90, 90, 12, 11, 10], 0, id="normal at once"),
        pytest.param([10, 10, 90, 90, 80, 80, 12, 11, 10, 9], 1, id="when two of three are normal"),
        pytest.param([10, 10, 90, 90, 80, 80, 80, 80, 80], 12, id="never"),
    ],
)
def test_recovery_is_when_p99_is_normal_again(p99_ms, expected):
    seconds = {at: {"p99_ms": value} for at, value in enumerate(p99_ms)}
    assert recovery_s(seconds, 2, 4) == expected


DOCUMENT = {
    "http_ratio_to_nginx": 0.5, "http_ratio_to_nginx_min": 0.4, "http_ratio_to_nginx_max": 0.6,
    "http_ratio_to_nginx_basis": "cpu", "overload_refusal_p99_ms": 70.0,
    "machine": {"cores": 2, "cpu": "X"}, "versions": {"nginx": "1"}, "date": "2026-11-21",
    "rounds": 5, "seconds": 5,
    "rows": {
        "http_c32": {
            "ours": series([measured(300)]).document(),
            "nginx": series([measured(900, load_use=0.95)]).document(),
        },
        "feature_costs": {
            "plain": {"about": "nothing", "router_cpu_us": spread([9.0]), "added_us": spread([0])},
            "odd": {"not_measured": "this router has no odd"},
        },
        "triton": {"not_measured": "no server\nmore"},
    },
}  # fmt: skip


def test_the_section_has_every_promise_with_its_verdict():
    text = render.section(DOCUMENT)
    assert "| the same: ours / nginx | >= 0.4 | 0.5 | 0.4 to 0.6 | met, by CPU |" in text
    assert "| the same: p99 of refusals, ms | <= 50 | 70 |  | **short** |" in text
    assert text.count("not measured |") == len(render.TARGETS) - 2
    assert "| plain | nothing | 9.0 (9.0 to 9.0) | 0.0 (0.0 to 0.0) |" in text
    assert "| odd | not measured: this router has no odd | | |" in text
    assert "Not measured: triton: no server\n" in text
    assert "load-bound" in text


def test_the_section_is_replaced_and_the_rest_stays():
    page = "# Benchmarks\n\nwords\n"
    once = render.placed(page, DOCUMENT)
    after = once + "\n## More\n"
    again = render.placed(after, DOCUMENT | {"http_ratio_to_nginx": 0.7})
    assert once.startswith("# Benchmarks\n\nwords\n\n<!-- router bench")
    assert again.count(render.BEGIN) == again.count(render.END) == 1
    assert again.endswith("\n## More\n")
    assert "| 0.7 |" in again


def test_the_picture_has_a_bar_for_each_router_fastest_first():
    drawn = render.picture(DOCUMENT)
    assert drawn.index("nginx") < drawn.index("ours")
    assert "900 load-bound" in drawn


@pytest.mark.parametrize("name", table.features())
def test_every_feature_of_the_bench_can_be_read(name):
    found = table.feature(name)
    assert found.about
    assert sum(found.weights.values()) == 100


def test_workers_are_of_the_revisions_in_turn(tmp_path):
    workers = [table.Worker(http=port) for port in (1, 2, 3)]
    file = table.write(tmp_path / "routes", workers, turned_on=table.feature("canary"))
    (written,) = json.loads(file.read_text())
    assert [one["revision"] for one in written["workers"]] == ["r1", "r2", "r1"]
    assert [one["weight"] for one in written["weights"]] == [90, 10]


def test_a_feature_that_the_table_lacks_is_named(tmp_path):
    odd = table.Feature("odd", table={"policy": {"unheardOf": 1}})
    with pytest.raises(RuntimeError, match="no odd"):
        table.write(tmp_path / "routes", [table.Worker(http=1)], turned_on=odd)
