"""Times of the wire (RFC 3339, UTC) and times of decisions (epoch seconds)."""

from datetime import UTC, datetime


def rfc3339(epoch_s: float) -> str:
    """Return whole seconds as Kubernetes writes them, e.g. 2026-01-31T08:00:00Z."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(epoch_s: float) -> str:
    """Return the form of metav1.MicroTime."""
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
