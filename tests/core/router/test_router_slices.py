"""EndpointSlices read, and what they say over a table, told second by second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.names import LABEL_CLASS, LABEL_POOL, LABEL_REVISION
from tidegate_router.core.endpoints import GRACE_S, Endpoint, EndpointBook
from tidegate_router.core.slices import pool_of, read_slice

POOL = ("ns", "p")


def a_slice(*endpoints, ports=(), **labels):
    named = {LABEL_POOL: "p", LABEL_REVISION: "r1", LABEL_CLASS: "cpu"} | labels
    return {
        "metadata": {"namespace": "ns", "labels": named},
        "ports": list(ports),
        "endpoints": list(endpoints),
    }


def an_entry(uid="a", **conditions):
    return {
        "addresses": ["10.0.0.7", "10.0.0.8"],
        "targetRef": {"uid": uid, "name": f"pod-{uid}"},
        "conditions": {"serving": True, "terminating": False} | conditions,
    }


def test_a_slice_is_read_whole():
    ports = [{"name": "http", "port": 18000}, {"name": "grpc", "port": 18001}]
    (found,) = read_slice(a_slice(an_entry(), ports=ports))
    assert (found.uid, found.name, found.address) == ("a", "pod-a", "10.0.0.7")
    assert (found.revision, found.accelerator) == ("r1", "cpu")
    assert (found.serving, found.terminating) == (True, False)
    assert (found.ports.http, found.ports.grpc) == (18000, 18001)
    assert pool_of(a_slice()) == POOL


@pytest.mark.parametrize(
    ("conditions", "serving", "terminating"),
    [
        pytest.param({"serving": False}, False, False, id="not-serving"),
        pytest.param({"terminating": True}, True, True, id="ends-but-serves"),
        pytest.param({"serving": None, "terminating": None}, False, False, id="nothing-known"),
    ],
)
def test_conditions(conditions, serving, terminating):
    (found,) = read_slice(a_slice(an_entry(**conditions)))
    assert (found.serving, found.terminating) == (serving, terminating)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"addresses": ["10.0.0.7"]}, id="no-pod"),
        pytest.param(an_entry() | {"addresses": []}, id="no-address"),
        pytest.param(an_entry() | {"addresses": None}, id="addresses-absent"),
        pytest.param(None, id="nothing"),
        pytest.param("text", id="no-object"),
    ],
)
def test_an_endpoint_without_pod_or_address_is_skipped(entry):
    assert [found.uid for found in read_slice(a_slice(entry, an_entry("b")))] == ["b"]


@pytest.mark.parametrize(
    "ports",
    [
        pytest.param([{"name": "http"}], id="no-number"),
        pytest.param([{"name": "other", "port": 7}], id="another-name"),
        pytest.param([{"port": 7}], id="no-name"),
        pytest.param([{"name": "http", "port": True}], id="no-integer"),
        pytest.param([{"name": "http", "port": 70000}], id="too-high"),
        pytest.param([None, "x"], id="no-objects"),
    ],
)
def test_ports_that_say_nothing_leave_the_usual_ones(ports):
    (found,) = read_slice(a_slice(an_entry(), ports=ports))
    assert (found.ports.http, found.ports.grpc) == (8000, 8001)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(1, 60000) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
)
ENTRIES = st.lists(
    JSON
    | st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("addresses", "targetRef", "conditions", "name", "port", "uid"),
            JSON | st.dictionaries(st.sampled_from(["uid", "serving"]), JSON),
        ),
    ),
    max_size=4,
)


@given(
    st.fixed_dictionaries(
        {}, optional={"metadata": JSON, "endpoints": JSON | ENTRIES, "ports": JSON | ENTRIES}
    )
)
def test_whatever_a_slice_holds_is_read_without_an_error(item):
    pool_of(item)
    assert all(found.uid and found.address for found in read_slice(item))


def serving(uid="a", *, revision="r1", up=True, terminating=False):
    return Endpoint(
        uid=uid, name=uid, address="10.0.0.1", revision=revision, accelerator="cpu",
        serving=up, terminating=terminating,
    )  # fmt: skip


@pytest.fixture
def table(make_worker, make_table):
    return make_table(make_worker("a"))


@pytest.fixture
def book(table):
    made = EndpointBook()
    made.note_table(table, 0.0)
    return made


def gone(book, table, now_s):
    return book.gone(POOL, table.workers[0], now_s)


def test_a_pool_without_slices_is_left_to_its_table(book, table):
    assert not gone(book, table, 1000.0)


def test_a_tabled_worker_may_be_missing_from_the_slices_for_10_s(book, table):
    book.replace(POOL, [serving("other")], 0.0)
    assert not gone(book, table, GRACE_S)
    assert gone(book, table, GRACE_S + 0.1)


def test_a_worker_that_left_the_slices_is_gone_at_once(book, table):
    book.replace(POOL, [serving("a"), serving("b")], 0.0)
    assert not gone(book, table, 1.0)
    book.replace(POOL, [serving("b")], 1.0)
    assert gone(book, table, 1.0)


def test_a_terminating_worker_is_gone_though_it_serves(book, table):
    book.replace(POOL, [serving("a", terminating=True)], 0.0)
    assert gone(book, table, 0.0)


def test_a_worker_that_does_not_serve_yet_is_the_tables_affair(book, table):
    book.replace(POOL, [serving("a", up=False)], 0.0)
    assert not gone(book, table, 100.0)


def test_the_last_slice_of_a_pool_gone_the_table_counts_again(book, table):
    book.replace(POOL, [serving("a", terminating=True)], 0.0)
    book.replace(POOL, [], 1.0)
    assert book.pools() == set()
    assert not gone(book, table, 100.0)


def test_a_slice_of_another_pool_says_nothing(book, table):
    book.replace(("ns", "other"), [serving("a", terminating=True)], 0.0)
    assert not gone(book, table, 100.0)


def unlisted(book, table, now_s):
    return [worker.id for worker in book.unlisted(POOL, table, now_s)]


def test_a_worker_that_no_table_lists_is_used_after_10_s_with_a_peers_models(book, table):
    book.replace(POOL, [serving("a"), serving("new")], 50.0)
    assert unlisted(book, table, 59.9) == []
    (found,) = book.unlisted(POOL, table, 60.0)
    assert (found.id, found.revision, found.score) == ("new", "r1", None)
    assert found.serves == table.workers[0].serves


@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param(serving("new", up=False), id="it-does-not-serve"),
        pytest.param(serving("new", terminating=True), id="it-ends"),
        pytest.param(serving("new", revision="r9"), id="nobody-knows-its-revision"),
        pytest.param(serving("a"), id="the-table-has-it"),
    ],
)
def test_others_stay_unused(book, table, endpoint):
    book.replace(POOL, [endpoint], 0.0)
    assert unlisted(book, table, 100.0) == []


def test_ten_seconds_count_from_when_it_first_served(book, table):
    book.replace(POOL, [serving("new", up=False)], 0.0)
    book.replace(POOL, [serving("new")], 40.0)
    assert unlisted(book, table, 49.9) == []
    assert unlisted(book, table, 50.0) == ["new"]


def test_what_is_forgotten_starts_anew(book, table):
    book.replace(POOL, [serving("new")], 0.0)
    book.forget_except({"a"})
    assert unlisted(book, table, 10.0) == ["new"], "it is still in a slice"
    book.replace(POOL, [serving("x")], 11.0)
    book.forget_except({"a"})
    book.replace(POOL, [serving("new")], 12.0)
    assert unlisted(book, table, 21.9) == []


def test_a_pod_that_is_gone_for_good_leaves_no_trace(book):
    book.replace(POOL, [serving(f"w{number}") for number in range(100)], 0.0)
    book.replace(POOL, [], 1.0)
    book.forget_except(set())
    assert (book._listed_s, book._tabled_s, book.pods()) == ({}, {}, set())
