"""Why a model cannot be served.

ModelError(ValueError)   carries `reason`, which ends in the pool's Ready condition
"""

import re

from tidegate_api.names import Reason

_LONGEST = 600
_QUERY = re.compile(r"""([a-z0-9]+://[^\s?'"]+)\?[^\s'")]*""")
_USER = re.compile(r"""([a-z0-9]+://)[^\s/?'"]+@""")


class ModelError(ValueError):
    """One model cannot be served; the others can. The message does not repeat its name."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return a message without line breaks, at most 600 characters."""
    joined = " ".join(text.replace("\\n", "\n").split())
    return joined if len(joined) <= _LONGEST else joined[: _LONGEST - 3] + "..."


def shown(text: str) -> str:
    """Return a text without what may be a credential in its URLs: user and query."""
    without_query = _QUERY.sub(r"\1?...", text)
    return _USER.sub(r"\1", without_query)
