"""The sha256 of a source: of a file its own, of a folder that of its listing.

Folder: `find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum`, which is
what `tidegate digest` prints.
"""

import hashlib
from collections.abc import Mapping

from tidegate_api.names import Reason
from tidegate_worker.core.errors import ModelError


def folder_digest(files: Mapping[str, str]) -> str:
    """Return the digest of {relative path: sha256 of its bytes}."""
    ordered = sorted((f"./{path}".encode(), digest) for path, digest in files.items())
    lines = b"".join(_line(path, digest) for path, digest in ordered)
    return hashlib.sha256(lines).hexdigest()


def _line(path: bytes, digest: str) -> bytes:
    """Return sha256sum's line: names with a backslash, newline or return are escaped and marked."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != path else b""
    return mark + digest.encode() + b"  " + escaped + b"\n"


def verify(uri: str, expected: str | None, found: str) -> None:
    """Raise ModelError unless the digest is as the user wrote it, or nothing was written."""
    if expected and expected != found:
        raise ModelError(
            Reason.MODEL_DIGEST_MISMATCH,
            f"{uri} has sha256 {found}, but source.sha256 is {expected}: the file "
            "changed or was damaged; check it, then write the new digest",
        )
