"""Requests that bear a pin's headers go to its revision whatever the weights say."""

from collections.abc import Iterable, Mapping, Sequence

from tidegate_api.routetable import Pin

Given = frozenset[tuple[str, str]]  # (name in lower case, value)


def given(pairs: Iterable[tuple[str, str | bytes]]) -> Given:
    """Return headers or metadata as pins are compared with them; binary values match no pin."""
    return frozenset((name.lower(), value) for name, value in pairs if isinstance(value, str))


def pinned_revisions(pins: Sequence[Pin], known: Given) -> list[str]:
    """Return the revisions whose pin a request bears whole, in the table's order.

    A pin without any header pins nothing: it would take every request.
    """
    return [pin.revision for pin in pins if pin.headers and _pairs(pin.headers) <= known]


def _pairs(headers: Mapping[str, str]) -> Given:
    return frozenset((name.lower(), value) for name, value in headers.items())
