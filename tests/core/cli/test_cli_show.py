import pytest

from tidegate_cli.core.show import Output, output_json, output_row, state, worker_rows


def worker(**changes):
    known = {
        "pool": "ml/vision", "worker": "vision-1", "accelerator": "cpu", "revision": "r1",
        "score": 0.876, "ready": True, "eligible": True, "draining": False, "down": False,
        "models": [{"model": "m", "inFlight": 1, "limit": 4, "weight": 0.5}],
    }  # fmt: skip
    return known | changes


def test_a_table_shows_the_first_values_and_counts_the_rest():
    row = output_row(Output("Y", "INT32", (2, 5), tuple(range(10))))
    assert row == ("Y", "INT32", "2x5", "0, 1, 2, 3, 4, 5, 6, 7 ... (2 more)")


def test_a_long_text_is_cut_and_a_float_rounded():
    row = output_row(Output("Y", "BYTES", (2,), (b"x" * 61, 1 / 3)))
    assert row[3] == f"{'x' * 60}..., 0.333333"


def test_json_keeps_every_value():
    found = output_json(Output("Y", "BYTES", (2,), (b"caf\xc3\xa9", b"\xff")))
    assert found == {"name": "Y", "datatype": "BYTES", "shape": [2], "data": ["café", "\ufffd"]}


def test_a_worker_has_a_row_for_each_model():
    models = [{"model": name, "inFlight": 0, "limit": 2, "weight": 1.0} for name in ("a", "b")]
    rows = worker_rows([worker(models=models), worker(models=[], score=None)])
    assert [row[5:] for row in rows] == [
        ("0.88", "a", "0/2", "1.0"),
        ("0.88", "b", "0/2", "1.0"),
        ("-", "-", "-", "-"),
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "serving"),
        ({"draining": True, "down": True, "ready": False}, "draining"),
        ({"down": True}, "down"),
        ({"ready": False}, "not ready"),
        ({"eligible": False}, "no model"),
    ],
)
def test_a_worker_s_state_is_what_keeps_requests_from_it(changes, expected):
    assert state(worker(**changes)) == expected
