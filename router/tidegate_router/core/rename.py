"""A second revision of a model in one Triton has another name there (operator.md section 7).

Clients know nothing of it: requests to such a worker carry the loaded name, answers the model's.
HTTP names the model in the path and, in answers, in the JSON; protobuf in field 1, where the last
value wins, so that appending one replaces it.
https://protobuf.dev/programming-guides/encoding/#last-one-wins
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tidegate_router.core import protowire

Pairs = list[tuple[str, str]]
_PREFIX = "/v2/models/"
_HEAD_LENGTH = "inference-header-content-length"
_MAX_DIGITS = 15  # as of Content-Length; Python refuses to read thousands


@dataclass(frozen=True, slots=True)
class Renamed:
    """The two names of one model: `model` for clients, `loaded` for the worker."""

    model: str
    loaded: str

    def target(self, target: str) -> str:
        """Return path and query with the worker's name."""
        mine = _PREFIX + self.model
        if target == mine or target.startswith((f"{mine}/", f"{mine}?")):
            return _PREFIX + self.loaded + target[len(mine) :]
        return target

    def request_headers(self, headers: Iterable[tuple[str, str]]) -> Pairs:
        """Return headers that ask for an answer in plain bytes: a packed one hides its name."""
        return [(name, value) for name, value in headers if name.lower() != "accept-encoding"]

    def answer(self, status: int, headers: Pairs, body: bytes) -> tuple[Pairs, bytes]:
        """Return a whole HTTP answer with the model's name.

        The JSON before binary tensors changes its length, which a header states; the tensors stay.
        """
        if status >= 400:
            return headers, body.replace(self.loaded.encode(), self.model.encode())
        size = head_size(headers, body)
        head = self.json(body[:size])
        return _resized(headers, len(head)), head + body[size:]

    def json(self, text: bytes) -> bytes:
        """Put the name back where it stands as "model_name" or "name"."""
        pattern = rb'("(?:model_)?name"\s*:\s*")' + re.escape(self.loaded.encode()) + rb'(?=")'
        return re.sub(pattern, rb"\g<1>" + self.model.encode(), text)

    def message(self, message: bytes) -> bytes:
        """Return a gRPC request with the worker's name."""
        return message + protowire.string_field(1, self.loaded)

    def streamed(self, message: bytes) -> bytes:
        """Return a message of a stream with the worker's name, if it is about this model."""
        try:
            named = protowire.scan(message).model
        except protowire.WireError:
            return message
        return self.message(message) if named in {"", self.model} else message

    def grpc_answer(self, method: str, message: bytes) -> bytes:
        """Return the answer of a method (its last path segment) with the model's name."""
        if method.endswith("/ModelStreamInfer"):
            return self._stream_answer(message)
        if method.endswith("/ModelStatistics"):
            return self._statistics(message)
        return message + protowire.string_field(1, self.model)

    def _stream_answer(self, message: bytes) -> bytes:
        """Field 2 is a message: a second one is merged into the first. An error has none."""
        if protowire.stream_error(message):
            return message
        return message + protowire.bytes_field(2, protowire.string_field(1, self.model))

    def _statistics(self, message: bytes) -> bytes:
        """Field 1 repeats, one message per model and version, each with its name in field 1."""
        name = protowire.string_field(1, self.model)
        try:
            return b"".join(
                protowire.bytes_field(1, one.data + name) if one.number == 1 else one.raw
                for one in protowire.fields(message)
            )
        except protowire.WireError:
            return message


@dataclass(slots=True)
class RenamedStream:
    """The pieces of an event stream: a line is held until it is whole, then given its name."""

    names: Renamed
    _rest: list[bytes] = field(default_factory=list)

    def feed(self, piece: bytes) -> bytes:
        """Return what can be passed on."""
        lines, newline, rest = piece.rpartition(b"\n")
        if not newline:
            self._rest.append(piece)
            return b""
        whole, self._rest = b"".join([*self._rest, lines, newline]), [rest]
        return self.names.json(whole)

    def end(self) -> bytes:
        """Return what was held at the end."""
        rest, self._rest = b"".join(self._rest), []
        return self.names.json(rest)


def head_size(headers: Iterable[tuple[str, str]], body: bytes) -> int:
    """Return how many bytes of an inference answer are JSON: those before binary tensors."""
    for name, value in headers:
        if name.lower() == _HEAD_LENGTH and value.isascii() and value.isdigit():
            return min(int(value), len(body)) if len(value) <= _MAX_DIGITS else len(body)
    return len(body)


def _resized(headers: Pairs, size: int) -> Pairs:
    return [(name, str(size) if name.lower() == _HEAD_LENGTH else value) for name, value in headers]
