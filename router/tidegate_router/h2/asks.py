"""What a client's message is about."""

import hashlib

from tidegate_api.names import DroppedReason
from tidegate_router.core import protowire
from tidegate_router.core.faults import Outcome, judge_grpc
from tidegate_router.core.h2 import messages
from tidegate_router.core.h2.heads import ClientHead
from tidegate_router.core.h2.messages import PREFIX_BYTES, MessageError, unpack_prefix
from tidegate_router.core.path import pool_name
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Call
from tidegate_router.h2.methods import Method

_UNKNOWN_LENGTH = 1 << 40


def ask_of(
    client: ClientHead, method: Method, begun: bytes, flag: int, following_bytes: int
) -> Ask | Refusal:
    """Read what a message is about; `begun` is all of it, or its beginning."""
    hashed = method.call is Call.INFER and not following_bytes
    try:
        if flag:
            plain, whole = messages.head_of(begun, client.encoding, compressed=True)
            following_bytes = 0 if whole else _UNKNOWN_LENGTH
        else:
            plain = begun
        named = protowire.scan(plain, following_bytes)
        sequence = protowire.sequence(plain) if method.call is not Call.INQUIRY else ""
    except (protowire.WireError, MessageError) as error:
        return Refusal(DroppedReason.BAD_REQUEST, f"the message is no request: {error}")
    model = named.model or client.model
    if not model:
        text = "the message names no model (field 1, or metadata x-tidegate-model)"
        return Refusal(DroppedReason.BAD_REQUEST, text)
    if client.pool and isinstance(refused := pool_name(client.pool), Refusal):
        return refused
    return Ask(
        model=model,
        version=named.version,
        pool=client.pool,
        call=method.call,
        timeout_s=client.timeout_s,
        body_hash=hashlib.blake2b(begun, digest_size=16).hexdigest() if hashed else "",
        given=client.given,
        sequence=sequence,
        tier=client.tier,
        size_bytes=len(begun),
    )


def answer_of(client: ClientHead, method: Method, data: bytes, flag: int) -> bytes | Refusal:
    """Return the router's own answer to a whole message, which has its prefix."""
    try:
        plain, _ = messages.head_of(data[PREFIX_BYTES:], client.encoding, compressed=bool(flag))
    except MessageError as error:
        return Refusal(DroppedReason.BAD_REQUEST, str(error))
    return method.local(plain, client) if method.local is not None else b""


def says_it_ran(data: bytes) -> bool | None:
    """Whether the beginning of a stream's answers is an answer; None: too little came to know."""
    if len(data) < PREFIX_BYTES:
        return None
    flag, size_bytes = unpack_prefix(data)
    if flag or size_bytes > protowire.MAX_ERROR_BYTES:
        return True
    if len(data) < PREFIX_BYTES + size_bytes:
        return None
    text = protowire.stream_error(data[PREFIX_BYTES : PREFIX_BYTES + size_bytes])
    return not (text and judge_grpc("UNKNOWN", text) is Outcome.NEVER_RAN)


def too_large(limit_bytes: int) -> Refusal:
    """Refuse a message by its stated size."""
    return Refusal(DroppedReason.TOO_LARGE, f"a message beyond {limit_bytes} bytes")
