"""Header blocks that come in parts, and what may stand before them."""

from tidegate_router.core.h2 import frames, limits
from tidegate_router.core.h2.frames import Code, ConnectionFault


class Partial:
    """A header block of which not all came yet."""

    __slots__ = ("end", "parts", "size_bytes", "stream_id")

    def __init__(self, stream_id: int, parts: list[bytes], size_bytes: int, *, end: bool) -> None:
        limits.check_block(size_bytes, 0)
        self.stream_id, self.parts, self.size_bytes, self.end = stream_id, parts, size_bytes, end


def check_size(size_bytes: int) -> None:
    """Refuse a frame beyond our limit."""
    if size_bytes > frames.MAX_FRAME_BYTES:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame beyond 16 KiB")


def without_priority(stream_id: int, payload: bytes) -> bytes:
    """Return a HEADERS payload without the fields of RFC 9113's deprecated priorities."""
    if len(payload) < 5:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
    check_dependency(stream_id, payload)
    return payload[5:]


def check_dependency(stream_id: int, payload: bytes) -> None:
    """Refuse a stream that depends on itself."""
    if int.from_bytes(payload[:4], "big") & frames.LAST_STREAM == stream_id:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "a stream that depends on itself")
