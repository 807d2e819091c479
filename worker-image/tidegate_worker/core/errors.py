"""Why a model cannot be served.

ModelError(ValueError)   carries `reason`, which ends in the pool's Ready condition
"""

from tidegate_api.names import Reason

_LONGEST = 600


class ModelError(ValueError):
    """One model cannot be served; the others can. The message does not repeat its name."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return a message without line breaks, at most 600 characters."""
    joined = " ".join(text.replace("\\n", "\n").split())
    return joined if len(joined) <= _LONGEST else joined[: _LONGEST - 3] + "..."
