"""Why a model cannot be served.

ModelError(ValueError)   carries `reason`, which ends in the pool's Ready condition
"""

from tidegate_api.names import Reason


class ModelError(ValueError):
    """One model cannot be served; the others can."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        super().__init__(message)
