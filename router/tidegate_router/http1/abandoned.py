"""What becomes of an answer whose client is gone."""

from tidegate_router.core.answer import AnswerHead
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.request import Attempt
from tidegate_router.http1.workers import Sink


class Abandoned(Sink):
    """The rest of an answer that nobody waits for: read, thrown away, and then the slot is free."""

    __slots__ = ("_attempt", "_dispatcher")

    def __init__(self, dispatcher: Dispatcher, attempt: Attempt) -> None:
        self._dispatcher, self._attempt = dispatcher, attempt

    def held_bytes(self, answer: AnswerHead) -> int:  # noqa: ARG002  # the interface's
        """Hold nothing."""
        return 0

    def answered(self, answer: AnswerHead, body: bytes) -> None:  # noqa: ARG002  # the same
        """The worker has stopped."""
        self._dispatcher.release(self._attempt)

    def opened(self, answer: AnswerHead) -> None:
        """Nothing to do."""

    def piece(self, data: bytes) -> None:
        """Nothing to do."""

    def ended(self) -> None:
        """The worker has stopped."""
        self._dispatcher.release(self._attempt)

    def broken(self, detail: str) -> None:  # noqa: ARG002  # the interface's
        """The worker has stopped, whatever it did."""
        self._dispatcher.release(self._attempt)
