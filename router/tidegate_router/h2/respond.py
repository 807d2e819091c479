"""Answers to clients: the frames of a head, messages and trailers."""

from tidegate_router.core.h2 import status
from tidegate_router.core.h2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_FRAME_BYTES,
    pack_head,
)
from tidegate_router.core.h2.hpack import literal
from tidegate_router.core.h2.link import Stream

OK_HEAD = b"\x88" + literal(b"content-type", b"application/grpc")
NO_GRPC_HEAD = literal(b":status", b"415")
_ENDS_HEADERS = END_HEADERS | END_STREAM


def error_trailers(code: int, text: bytes) -> bytes:
    """Return a status with its text, encoded."""
    encoded = literal(b"grpc-status", b"%d" % code)
    return encoded + literal(b"grpc-message", status.encode_message(text)) if text else encoded


def send_answer(stream: Stream, head: bytes, message: bytes, tail: bytes) -> None:
    """Send all of an answer: in one piece if windows have room for it, which is the usual case."""
    link, size_bytes = stream.link, len(message)
    if link is None:
        return
    if (
        size_bytes > stream.window_bytes
        or size_bytes > link.window_bytes
        or max(size_bytes, len(head), len(tail)) > MAX_FRAME_BYTES
        or link.blocked
        or link.owes_size
    ):
        link.send_head(stream, head, end=False)
        link.send_data(stream, message, tail)
        return
    link.window_bytes -= size_bytes
    link.moved += 1
    number, head_bytes, tail_bytes = stream.id, len(head), len(tail)
    link.send(
        b"".join(
            (
                pack_head(head_bytes >> 8, head_bytes & 0xFF, HEADERS, END_HEADERS, number),
                head,
                pack_head(size_bytes >> 8, size_bytes & 0xFF, DATA, 0, number),
                message,
                pack_head(tail_bytes >> 8, tail_bytes & 0xFF, HEADERS, _ENDS_HEADERS, number),
                tail,
            )
        )
    )
    link.half_ended(stream)


def send_trailers(stream: Stream, tail: bytes, *, begun: bool) -> None:
    """End a stream with a status: after what was sent, or as the whole answer."""
    link = stream.link
    if link is None:
        return
    if begun:
        link.send_data(stream, b"", tail)
    else:
        link.send_head(stream, OK_HEAD + tail, end=True)


def send_no_grpc(stream: Stream) -> None:
    """Answer a request that is not gRPC (HTTP status 415, as gRPC over HTTP/2 demands)."""
    if stream.link is not None:
        stream.link.send_head(stream, NO_GRPC_HEAD, end=True)
