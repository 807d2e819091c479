"""Durations ("500us", "1h30m") and Kubernetes quantities ("2300Mi", "500m") as numbers."""

import re
from decimal import Decimal

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(us|ms|s|m|h))+$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
_UNIT_S = {"us": "0.000001", "ms": "0.001", "s": "1", "m": "60", "h": "3600"}
_QUANTITY = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")
_FACTOR = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}


def duration_s(text: str) -> float:
    """Return seconds for Go's duration syntax ("500us", "1m30s"); ValueError names the text."""
    if not re.match(DURATION_PATTERN, text):
        raise ValueError(f'"{text}" is no duration: expected e.g. 500us, 2s, 1m30s')
    parts = _DURATION_PART.findall(text)
    return float(sum(Decimal(number) * Decimal(_UNIT_S[unit]) for number, unit in parts))


def duration_us(text: str) -> int:
    """Return whole microseconds, Triton's unit for queue delays and timeouts."""
    return round(duration_s(text) * 1_000_000)


def quantity(text: str) -> Decimal:
    """Return the number a Kubernetes quantity means; ValueError names the text."""
    match = _QUANTITY.match(text)
    if not match:
        raise ValueError(f'"{text}" is no quantity: expected e.g. 500m, 2, 8Gi')
    return Decimal(match[1]) * _FACTOR[match[2] or ""]


def quantity_bytes(text: str) -> int:
    """Return a quantity of memory in bytes."""
    return int(quantity(text))
