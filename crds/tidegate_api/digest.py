"""The sha256 that `source.sha256` holds: a file's own, or a folder's over its listing.

Folder: `find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum`, which is
what `tidegate digest` prints and what a worker verifies.
"""

import hashlib
from collections.abc import Mapping


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
