"""HPACK (RFC 7541) for a relay: blocks are decoded field by field, each field remembered.

The `hpack` package decodes a block of ten fields in about 30 us; with 20 us for all else a request
costs, that would be most of it wherever blocks differ from request to request (an id is enough).
Here a block that was seen is found whole, as long as the dynamic table is what it was; else its
literals are found one by one. Huffman codes are read by the package. We encode without indexing,
so that an encoder has no state.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from tidegate_router.core.h2.frames import Code, ConnectionFault

TABLE_BYTES = 4096  # the protocol's initial size of the dynamic table, which we never change
MAX_LIST_BYTES = 65536  # of one decoded block, each field with 32 bytes on top (RFC 9113 10.5.1)
_OVERHEAD_BYTES = 32
_MAX_REMEMBERED = 512
_MAX_REMEMBERED_BYTES = 512  # of one entry
_MAX_TEXTS = 1024
_MAX_INTEGER_BYTES = 4

Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]
T = TypeVar("T")

STATIC: tuple[Field, ...] = ((b"", b""), *(tuple(pair) for pair in HeaderTable.STATIC_TABLE))
_STATIC_END = len(STATIC)
_STATIC_NAMES: dict[bytes, int] = {}
for _index, (_name, _) in enumerate(STATIC):
    _STATIC_NAMES.setdefault(_name, _index)


def encode(fields: Fields | list[Field]) -> bytes:
    """Return a block of literals without indexing: neither side's table changes."""
    return b"".join([literal(name, value) for name, value in fields])


def literal(name: bytes, value: bytes) -> bytes:
    """Return one field, its name by the static table where that has it."""
    index = _STATIC_NAMES.get(name, 0)
    if index:
        return _integer(index, 4, 0) + _text(value)
    return b"\x00" + _text(name) + _text(value)


def _text(value: bytes) -> bytes:
    size = len(value)
    return (bytes((size,)) if size < 127 else _integer(size, 7, 0)) + value


def _integer(value: int, bits: int, first: int) -> bytes:
    """Return a number with a prefix of `bits` (RFC 7541 section 5.1)."""
    top = (1 << bits) - 1
    if value < top:
        return bytes((first | value,))
    made = bytearray((first | top,))
    value -= top
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


class Decoder:
    """One direction of one connection: the dynamic table and what was read with it.

    `version` changes with the table.
    """

    __slots__ = ("_limit_bytes", "_size_bytes", "_table", "_texts", "version")

    def __init__(self) -> None:
        self.version = 0
        self._table: deque[Field] = deque()  # newest first
        self._size_bytes = 0
        self._limit_bytes = TABLE_BYTES
        self._texts: dict[bytes, bytes] = {}  # Huffman code to what it says

    def decode(self, block: bytes) -> Fields:
        """Return a block's fields; ConnectionFault for what is none, or too much."""
        fields: list[Field] = []
        at, end, total = 0, len(block), 0
        try:
            while at < end:
                byte = block[at]
                if byte >= 0x80:
                    at, field = self._indexed(block, at, byte)
                elif byte & 0xE0 == 0x20:
                    at = self._resize(block, at, first=not fields)
                    continue
                else:
                    at, field = self._literal(block, at, byte)
                fields.append(field)
                total += len(field[0]) + len(field[1]) + _OVERHEAD_BYTES
                if total > MAX_LIST_BYTES:
                    raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header list beyond 64 KiB")
        except IndexError:
            raise _broken("the block ends inside a field") from None
        return tuple(fields)

    def _indexed(self, block: bytes, at: int, byte: int) -> tuple[int, Field]:
        index = byte & 0x7F
        at += 1
        if index == 0x7F:
            index, at = _more(block, at, index)
        if index < _STATIC_END:
            if index == 0:
                raise _broken("index 0")
            return at, STATIC[index]
        return at, self._entry(index)

    def _entry(self, index: int) -> Field:
        if index < _STATIC_END:
            return STATIC[index]
        at = index - _STATIC_END
        if at >= len(self._table):
            raise _broken("an index beyond the table")
        return self._table[at]

    def _literal(self, block: bytes, at: int, byte: int) -> tuple[int, Field]:
        keep = byte >= 0x40
        mask = 0x3F if keep else 0x0F
        index = byte & mask
        at += 1
        if index == mask:
            index, at = _more(block, at, index)
        if index:
            name = self._entry(index)[0]
        else:
            at, name = self._string(block, at)
        at, value = self._string(block, at)
        if keep:
            self._add((name, value))
        return at, (name, value)

    def _string(self, block: bytes, at: int) -> tuple[int, bytes]:
        byte = block[at]
        size = byte & 0x7F
        at += 1
        if size == 0x7F:
            size, at = _more(block, at, size)
        end = at + size
        if end > len(block):
            raise _broken("a text is longer than its block")
        raw = block[at:end]
        if byte < 0x80:
            return end, raw
        known = self._texts.get(raw)
        return end, self._unpack(raw) if known is None else known

    def _unpack(self, raw: bytes) -> bytes:
        try:
            text = decode_huffman(raw)
        except HPACKDecodingError:
            raise _broken("no Huffman code") from None
        if len(raw) <= _MAX_REMEMBERED_BYTES:
            if len(self._texts) >= _MAX_TEXTS:
                self._texts.clear()
            self._texts[raw] = text
        return text

    def _add(self, field: Field) -> None:
        self.version += 1
        self._table.appendleft(field)
        self._size_bytes += len(field[0]) + len(field[1]) + _OVERHEAD_BYTES
        self._shrink()

    def _resize(self, block: bytes, at: int, *, first: bool) -> int:
        size = block[at] & 0x1F
        at += 1
        if size == 0x1F:
            size, at = _more(block, at, size)
        if size > TABLE_BYTES or not first:
            raise _broken("a table size that was not allowed, or not at a block's start")
        self.version += 1
        self._limit_bytes = size
        self._shrink()
        return at

    def _shrink(self) -> None:
        while self._size_bytes > self._limit_bytes:
            name, value = self._table.pop()
            self._size_bytes -= len(name) + len(value) + _OVERHEAD_BYTES


def _more(block: bytes, at: int, value: int) -> tuple[int, int]:
    """Return a number that did not fit its prefix, and where it ends."""
    for shift in range(0, 7 * _MAX_INTEGER_BYTES, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _broken("a number beyond 2^28")


def _broken(text: str) -> ConnectionFault:
    return ConnectionFault(Code.COMPRESSION_ERROR, text)


class Memo(Generic[T]):
    """What blocks came to: `derive` of their fields, remembered by the block's bytes.

    A block means the same only while the table is unchanged, and is remembered only if it left
    the table alone. `derive` must depend on nothing but the fields.
    """

    __slots__ = ("_decoder", "_derive", "_known", "_version")

    def __init__(self, derive: Callable[[Fields], T]) -> None:
        self._decoder = Decoder()
        self._derive = derive
        self._known: dict[bytes, T] = {}
        self._version = 0

    def read(self, block: bytes) -> T:
        """Return what a block says; ConnectionFault as `Decoder.decode`."""
        found = self._known.get(block)
        return self._learn(block) if found is None else found

    def _learn(self, block: bytes) -> T:
        decoder = self._decoder
        fields = decoder.decode(block)
        if decoder.version != self._version:
            self._version = decoder.version
            self._known.clear()
            return self._derive(fields)
        derived = self._derive(fields)
        if len(block) <= _MAX_REMEMBERED_BYTES:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known[block] = derived
        return derived
