import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_cli.core.tensors import Declared, Given, Tensor, fit, plan, split
from tidegate_cli.errors import InputError


def declared(datatype="FP32", *shape):
    return Declared("X", datatype, shape or (-1,))


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("X=3", ("X", "3")),
        ("X=", ("X", "")),
        ("X=a=b", ("X", "a=b")),
        ("X=@file", ("X", "@file")),
    ],
)
def test_an_argument_is_split_at_its_first_equals_sign(argument, expected):
    assert split(argument) == expected


@pytest.mark.parametrize("argument", ["X", "=3", ""])
def test_an_argument_without_name_or_value_is_refused(argument):
    with pytest.raises(InputError, match="expected NAME=VALUE"):
        split(argument)


@pytest.mark.parametrize(
    ("shape", "count", "expected"),
    [
        ((-1,), 3, (3,)),
        ((-1,), 0, (0,)),
        ((-1, 1), 3, (3, 1)),
        ((-1, 4), 8, (2, 4)),
        ((-1, -1), 5, (1, 5)),
        ((1, 3), 3, (1, 3)),
        ((-1, 3, -1, 2), 12, (1, 3, 2, 2)),
        ((), 1, ()),
    ],
)
def test_values_fill_the_last_unknown_dimension(shape, count, expected):
    assert fit(Declared("X", "FP32", shape), count) == expected


@pytest.mark.parametrize(
    ("shape", "count"), [((-1, 4), 6), ((3,), 2), ((), 2), ((-1, 0), 1), ((2, 2), 0)]
)
def test_values_that_leave_a_gap_are_refused(shape, count):
    with pytest.raises(InputError, match="do not fill"):
        fit(Declared("X", "FP32", shape), count)


@pytest.mark.parametrize(
    ("one", "text", "shape", "values"),
    [
        (declared("FP32", -1), "1.5", (1,), (1.5,)),
        (declared("FP32", -1), "[1, 2]", (2,), (1, 2)),
        (declared("INT64", -1, 2), "[1, 2]", (1, 2), (1, 2)),
        (declared("INT64", -1, 2), "[[1, 2], [3, 4]]", (2, 2), (1, 2, 3, 4)),
        (declared("INT64", -1, -1), "[[1], [2]]", (2, 1), (1, 2)),
        (declared("BOOL", -1), "[true, false]", (2,), (True, False)),
    ],
)
def test_json_gives_values_and_where_it_can_the_shape(one, text, shape, values):
    assert plan([one], [Given("X", text)]) == [Tensor("X", one.datatype, shape, values)]


def test_a_name_given_again_adds_a_row():
    rows = [Given("X", "[1, 2]"), Given("X", "[3, 4]")]
    assert plan([declared("INT32", -1, 2)], rows) == [Tensor("X", "INT32", (2, 2), (1, 2, 3, 4))]


def test_text_and_file_content_are_elements_of_a_bytes_input():
    items = [Given("X", "a"), Given("X", content=b"\xff")]
    assert plan([declared("BYTES", -1, 1)], items) == [
        Tensor("X", "BYTES", (2, 1), (b"a", b"\xff"))
    ]


def test_file_content_of_a_number_input_stays_raw():
    found = plan([declared("FP32", -1, 2)], [Given("X", content=bytes(16))])
    assert found == [Tensor("X", "FP32", (2, 2), raw=bytes(16))]


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ([], r"no value for input X \(FP32 \[-1, 2\]\): add --input X="),
        ([Given("Y", "1")], r"the model has no input Y; it has X \(FP32 \[-1, 2\]\)"),
        ([Given("X", "one")], "as JSON, like 3"),
        ([Given("X", '"one"')], "expected numbers"),
        ([Given("X", "null")], "expected numbers"),
        ([Given("X", "[[1, 2], [3]]")], "lists have different lengths"),
        ([Given("X", "[[1, 2, 3]]")], r"shape \[1, 3\] given, \[-1, 2\] expected"),
        ([Given("X", "[1]"), Given("X", "[1, 2]")], "rows have different shapes"),
        ([Given("X", content=bytes(5))], "no whole number of FP32 values"),
        ([Given("X", content=bytes(8)), Given("X", "1")], "not both"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(items, complaint):
    with pytest.raises(InputError, match=complaint):
        plan([declared("FP32", -1, 2)], items)


def test_a_type_that_numpy_lacks_is_refused():
    with pytest.raises(InputError, match="BF16 is not supported"):
        plan([declared("BF16", -1)], [Given("X", "1")])


@given(st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=1, max_size=5))
def test_nested_json_keeps_order_and_shape(rows):
    [found] = plan([declared("INT32", -1, 3)], [Given("X", json.dumps(rows))])
    assert found.shape == (len(rows), 3)
    assert list(found.values) == [value for row in rows for value in row]
