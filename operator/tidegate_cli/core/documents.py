"""Reading fields of JSON documents that may hold anything, and times as users read them."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

Json = Mapping[str, object]
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86400


def field(document: object, *keys: str) -> object:
    """Return what lies at a path of keys, None where anything is missing."""
    for key in keys:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def mapping(document: object, *keys: str) -> Json:
    """Return the object at a path, an empty one where there is none."""
    found = field(document, *keys)
    return found if isinstance(found, Mapping) else {}


def records(document: object, *keys: str) -> Iterator[Json]:
    """Yield the objects of the list at a path."""
    found = field(document, *keys)
    yield from (
        item for item in (found if isinstance(found, list) else ()) if isinstance(item, Mapping)
    )


def text(document: object, *keys: str) -> str:
    """Return the text at a path, an empty one where there is none."""
    found = field(document, *keys)
    return found if isinstance(found, str) else ""


def number(document: object, *keys: str) -> int:
    """Return the whole number at a path, 0 where there is none."""
    found = field(document, *keys)
    return found if isinstance(found, int) else 0


def instant_s(rfc3339: str | None) -> float | None:
    """Return epoch seconds, None for what is no instant."""
    try:
        return datetime.fromisoformat(rfc3339 or "").timestamp()
    except ValueError:
        return None


def rfc3339(epoch_s: float) -> str:
    """Return whole seconds in UTC, e.g. 2026-01-31T08:00:00Z."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: float) -> str:
    """Return a time as people say it: 45s, 2m30s, 3h5m, 2d4h."""
    whole = max(0, round(seconds))
    if whole < _MINUTE_S:
        return f"{whole}s"
    if whole < _HOUR_S:
        return _two(whole, _MINUTE_S, "m", 1, "s")
    if whole < _DAY_S:
        return _two(whole, _HOUR_S, "h", _MINUTE_S, "m")
    return _two(whole, _DAY_S, "d", _HOUR_S, "h")


def _two(whole: int, large_s: int, large: str, small_s: int, small: str) -> str:
    rest = whole % large_s // small_s
    return f"{whole // large_s}{large}" + (f"{rest}{small}" if rest else "")


def full_name(plural: str, namespace: str, name: str) -> str:
    """Return the name that every message gives an object."""
    return f"{plural}.tidegate.dev {namespace}/{name}"
