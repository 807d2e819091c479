"""The sequence that an HTTP inference request is part of (Triton's sequence extension)."""

import orjson

_KEY = "sequence_id"
QUOTED = b'"sequence_id"'
_MAX_CHARS = 256


def of_http(body: bytes, header_length: str = "") -> str:
    """Return parameter `sequence_id` of a request, a number or a text; empty: of none.

    `header_length`: Inference-Header-Content-Length, the size of the JSON part if tensors follow.
    """
    end = int(header_length) if header_length.isdecimal() else len(body)
    if body.find(QUOTED, 0, end) < 0:  # nearly always: a search costs less than a look at JSON
        return ""
    try:
        document = orjson.loads(body[:end])
    except orjson.JSONDecodeError:
        return ""
    parameters = document.get("parameters") if isinstance(document, dict) else None
    found = parameters.get(_KEY) if isinstance(parameters, dict) else None
    if isinstance(found, str):
        return found[:_MAX_CHARS]
    is_number = isinstance(found, int) and not isinstance(found, bool)
    return str(found) if is_number and found else ""
