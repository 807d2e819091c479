"""What loops and clients tell each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tidegate_cli.core.loadtest.outcome import Outcome
from tidegate_cli.core.loadtest.tally import Answered


@dataclass(slots=True)
class Payload:
    """The bytes of one request, and the good answer that it had first (if answers are compared)."""

    wire: bytes
    expected: bytes | None = None


@dataclass(slots=True)
class Shot:
    """One request on its way. Times are those of `time.monotonic`."""

    payload: Payload
    intended_s: float
    sent_s: float = 0.0


Finished = Callable[[Shot, Answered], None]


class Client(Protocol):
    """Sends shots over connections of its own and says what came of each."""

    finished: Finished

    async def open(self, connections: int) -> None:
        """Connect; raises ServerError when nobody is there."""

    def send(self, shot: Shot) -> bool:
        """Send at once; False when every connection is busy."""

    def sweep(self, now_s: float) -> None:
        """Give up what waits longer than the timeout."""

    async def close(self) -> None:
        """Break what is in flight and let go of every connection."""


@dataclass(slots=True)
class Answers:
    """Makes each kind of answer once, and compares answers where that is asked for."""

    compare: bool
    _known: dict[tuple[Outcome, str, str, str], Answered] = field(default_factory=dict)

    def of(
        self, outcome: Outcome, detail: str = "", revision: str = "", worker: str = ""
    ) -> Answered:
        """Return the one object of this kind of answer."""
        key = (outcome, detail, revision, worker)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Answered(*key)
        return found

    def checked(self, outcome: Outcome, payload: Payload, body: bytes) -> Outcome:
        """Return WRONG for a good answer that differs from the first one of its request."""
        if not self.compare or outcome is not Outcome.OK:
            return outcome
        if payload.expected is None:
            payload.expected = body
        return outcome if payload.expected == body else Outcome.WRONG
