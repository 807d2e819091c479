"""Response cache with single-flight (router.md section 11), for models whose owner asked for it.

A lane asks `look` after the revision was drawn and does what it says:

    Hit     answer from memory
    Lead    go on as usual; then exactly one of `fill` (a complete 200) and `fail` (anything else)
    Follow  `join`, then wait: the callback gets the answer, or None = go on alone
    None    go on alone: the flight has followers enough

A flight belongs to nobody: it outlives its leader's client as long as somebody follows. Answers
are of any type; the lane says how large they are.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

DEFAULT_MAX_BYTES = 64 * 1024 * 1024
MAX_ANSWER_BYTES = 1024 * 1024
MAX_FOLLOWERS = 1000
_ENTRY_BYTES = 512  # of the key and the bookkeeping
_SWEEP = 100
_NEVER = frozenset({"no-store", "no-cache"})

AnswerT = TypeVar("AnswerT")
Notify = Callable[[AnswerT | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """All that an answer depends on. `path` with its query; absent headers are empty."""

    pool_uid: str
    model: str
    revision: str
    version: str
    path: str
    header_length: str  # Inference-Header-Content-Length
    content_encoding: str
    accept_encoding: str
    body: bytes


def cache_key(asked: Question) -> bytes:
    """Return BLAKE2b-256 over a question; its parts cannot run into each other."""
    parts = (
        asked.pool_uid,
        asked.model,
        asked.revision,
        asked.version,
        asked.path,
        asked.header_length,
        asked.content_encoding,
        asked.accept_encoding,
    )
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=32)
    digest.update(asked.body)
    return digest.digest()


def forbids(cache_control: Iterable[str]) -> bool:
    """Whether Cache-Control values ask for an answer that is neither kept nor old."""
    return any(
        token.strip().lower() in _NEVER for value in cache_control for token in value.split(",")
    )


def names_itself(body: bytes, header_length: str) -> bool:
    """Whether a JSON request may bear an `id`, which Triton echoes: such a one is not cached.

    Errs on the side of yes (an escaped or a nested key). A compressed body shows nothing; equal
    ones have equal ids, so their answers are equal as well.
    """
    head = body[: int(header_length)] if header_length.isdecimal() else body
    return b'"id"' in head or b"\\u00" in head


@dataclass(slots=True, eq=False)
class Flight(Generic[AnswerT]):
    """One question on its way. `rank` of its tier, 0 is the highest."""

    key: bytes
    rank: int
    raise_tier: Callable[[str], None] = field(default=lambda _: None)
    followers: dict[int, Notify[AnswerT]] = field(default_factory=dict)
    joined: int = 0
    landed: bool = False


@dataclass(frozen=True, slots=True)
class Hit(Generic[AnswerT]):
    """A kept answer and how old it is."""

    answer: AnswerT
    age_s: float


@dataclass(frozen=True, slots=True)
class Lead(Generic[AnswerT]):
    """Nobody asks this now: go on, the others follow."""

    flight: Flight[AnswerT]


@dataclass(frozen=True, slots=True)
class Follow(Generic[AnswerT]):
    """Somebody asks this now."""

    flight: Flight[AnswerT]


@dataclass(frozen=True, slots=True)
class _Kept(Generic[AnswerT]):
    answer: AnswerT
    size_bytes: int
    stored_s: float
    expires_s: float


@dataclass(slots=True)
class ResponseCache(Generic[AnswerT]):
    """Kept answers, least recently used first, and the flights of questions asked now."""

    max_bytes: int = DEFAULT_MAX_BYTES
    size_bytes: int = 0
    _kept: OrderedDict[bytes, _Kept[AnswerT]] = field(default_factory=OrderedDict)
    _flights: dict[bytes, Flight[AnswerT]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._kept)

    def look(
        self, key: bytes, now_s: float, rank: int = 0
    ) -> Hit[AnswerT] | Lead[AnswerT] | Follow[AnswerT] | None:
        """Say how a question is answered; a Lead's flight begins with this call."""
        kept = self._kept.get(key)
        if kept is not None:
            if now_s < kept.expires_s:
                self._kept.move_to_end(key)
                return Hit(kept.answer, now_s - kept.stored_s)
            self._drop(key)
        flight = self._flights.get(key)
        if flight is not None:
            return Follow(flight) if len(flight.followers) < MAX_FOLLOWERS else None
        flight = self._flights[key] = Flight(key, rank)
        return Lead(flight)

    def join(
        self, flight: Flight[AnswerT], notify: Notify[AnswerT], rank: int = 0, tier: str = ""
    ) -> int:
        """Follow a flight; `notify` is called once, unless `leave` is. Raises its tier if higher.

        Returns the number that `leave` takes.
        """
        flight.joined += 1
        flight.followers[flight.joined] = notify
        if rank < flight.rank:
            flight.rank = rank
            flight.raise_tier(tier)
        return flight.joined

    def leave(self, flight: Flight[AnswerT], number: int) -> None:
        """Stop following: the client left, or its own deadline is over."""
        flight.followers.pop(number, None)

    def fill(
        self, flight: Flight[AnswerT], answer: AnswerT, size_bytes: int, ttl_s: float, now_s: float
    ) -> None:
        """Keep a complete 200 for `ttl_s` and give it to the followers; a larger one fails."""
        if size_bytes > MAX_ANSWER_BYTES:
            self.fail(flight)
            return
        if flight.landed:
            return
        self._keep(flight.key, _Kept(answer, size_bytes + _ENTRY_BYTES, now_s, now_s + ttl_s))
        self._land(flight, answer)

    def fail(self, flight: Flight[AnswerT]) -> None:
        """End a flight without an answer to keep: its followers go on alone. Idempotent."""
        if not flight.landed:
            self._land(flight, None)

    def sweep(self, now_s: float) -> None:
        """Drop expired answers among those that nobody asked for lately."""
        oldest = [key for key, _ in zip(self._kept, range(_SWEEP), strict=False)]
        for key in oldest:
            if now_s >= self._kept[key].expires_s:
                self._drop(key)

    def _keep(self, key: bytes, kept: _Kept[AnswerT]) -> None:
        if kept.size_bytes > self.max_bytes:
            return
        if key in self._kept:
            self._drop(key)
        while self.size_bytes + kept.size_bytes > self.max_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[key] = kept
        self.size_bytes += kept.size_bytes

    def _drop(self, key: bytes) -> None:
        self.size_bytes -= self._kept.pop(key).size_bytes

    def _land(self, flight: Flight[AnswerT], answer: AnswerT | None) -> None:
        flight.landed = True
        del self._flights[flight.key]
        followers, flight.followers = flight.followers, {}
        for notify in followers.values():
            notify(answer)
