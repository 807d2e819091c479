"""Which sequence an HTTP request is part of."""

import pytest

from tidegate_router.core.sequence_ids import of_http

HEAD = b'{"parameters":{"sequence_id":7,"sequence_start":true},"inputs":[]}'


@pytest.mark.parametrize(
    ("body", "header_length", "expected"),
    [
        pytest.param(HEAD, "", "7", id="a-number"),
        pytest.param(HEAD.replace(b"7", b'"s-1"'), "", "s-1", id="a-text"),
        pytest.param(HEAD.replace(b"7", b"0"), "", "", id="0-is-none"),
        pytest.param(HEAD.replace(b"7", b"true"), "", "", id="no-number"),
        pytest.param(HEAD + b"\x00" * 8, str(len(HEAD)), "7", id="tensors-follow"),
        pytest.param(b'{"inputs":[]}' + HEAD, "13", "", id="in-a-tensor"),
        pytest.param(b'{"inputs":[{"data":["sequence_id"]}]}', "", "", id="in-data"),
        pytest.param(b'["sequence_id"]', "", "", id="no-object"),
        pytest.param(b'{"sequence_id"', "", "", id="no-json"),
        pytest.param(b"", "", "", id="nothing"),
    ],
)
def test_the_sequence_id_is_a_parameter(body, header_length, expected):
    assert of_http(body, header_length) == expected
