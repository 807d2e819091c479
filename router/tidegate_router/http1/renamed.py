"""Requests and answers of a worker that loaded a model under another name (core/rename.py)."""

from tidegate_router.core.answer import AnswerHead, block, status_line
from tidegate_router.core.head import Head
from tidegate_router.core.rename import Renamed
from tidegate_router.core.request import Attempt


def request(attempt: Attempt, head: Head) -> tuple[bytes, bytes]:
    """Return target and header lines with the worker's name."""
    names = Renamed(attempt.model, attempt.loaded_as)
    pairs = names.request_headers(texts(head.pairs))
    return names.target(head.target.decode("ascii")).encode("ascii"), block(_bytes(pairs))


def answer(attempt: Attempt, head: AnswerHead, body: bytes) -> tuple[AnswerHead, bytes]:
    """Return a whole answer with the model's own name."""
    names = Renamed(attempt.model, attempt.loaded_as)
    pairs, body = names.answer(head.status, texts(head.pairs), body)
    kept = _bytes(pairs)
    lines = status_line(head.status) + block(kept)
    known = AnswerHead(head.status, len(body), kept, lines, head.reusable, head.bodiless)
    return known, body


def texts(pairs: tuple[tuple[bytes, bytes], ...]) -> list[tuple[str, str]]:
    """Return headers as text; every byte survives."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]


def _bytes(pairs: list[tuple[str, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs)
