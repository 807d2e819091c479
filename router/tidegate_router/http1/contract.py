"""What an exchange needs of a client's side, whoever it is."""

from typing import Protocol


class Client(Protocol):
    """What an exchange asks of the connection that it answers."""

    def set_due(self, due_s: float) -> None:
        """Call `on_due` then."""

    def respond(self, data: bytes) -> None:
        """Send the whole answer; the exchange is over."""

    def lines(self, *, closing: bool = False) -> bytes:
        """Return what every answer ends with; decides whether the connection stays."""

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""

    def complete(self) -> None:
        """The parts were all; the exchange is over."""

    def abort(self) -> None:
        """Break the connection: a proper end would call a truncated answer complete."""

    def expects(self) -> None:
        """The request was admitted: ask for its body if the client waits to be asked."""

    def must_close(self) -> None:
        """The answer's end can only be told by closing."""
