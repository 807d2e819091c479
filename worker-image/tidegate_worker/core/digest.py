"""Whether a source is what its pool says it is."""

from tidegate_api.names import Reason
from tidegate_worker.core.errors import ModelError


def verify(uri: str, expected: str | None, found: str) -> None:
    """Raise ModelError unless the digest is as the user wrote it, or nothing was written."""
    if expected and expected != found:
        raise ModelError(
            Reason.MODEL_DIGEST_MISMATCH,
            f"{uri} has sha256 {found}, but source.sha256 is {expected}: the file "
            "changed or was damaged; check it, then write the new digest",
        )
