"""What follows when tritonserver ends by itself, or a model's step fails. Pure."""

from collections.abc import Sequence

_WINDOW_S = 60.0
_LIMIT = 3
_BACKOFF_S = (0.5, 8.0)
_MODEL_BACKOFF_S = (1.0, 60.0)


def gives_up(crashes_s: Sequence[float], now_s: float) -> bool:
    """Whether three crashes lie in the last 60 s: then the pod fails."""
    return sum(1 for at_s in crashes_s if now_s - at_s <= _WINDOW_S) >= _LIMIT


def blames_second(crashes_s: Sequence[float], now_s: float, *, while_loading: bool) -> bool:
    """Whether a crash keeps the second revision out, so that it cannot take the first one along.

    True after a crash while it was being loaded, and after the second crash within 60 s: the
    third one would fail the pod.
    """
    return while_loading or sum(1 for at_s in crashes_s if now_s - at_s <= _WINDOW_S) > 1


def backoff_s(crashes_s: Sequence[float], now_s: float) -> float:
    """Return seconds to wait before the next start: 0.5, 1, 2 ... at most 8."""
    recent = sum(1 for at_s in crashes_s if now_s - at_s <= _WINDOW_S)
    return float(min(_BACKOFF_S[1], _BACKOFF_S[0] * 2 ** max(0, recent - 1)))


def model_backoff_s(failures: int) -> float:
    """Return seconds before a model is fetched or loaded again: 1, 2, 4 ... at most 60."""
    return float(min(_MODEL_BACKOFF_S[1], _MODEL_BACKOFF_S[0] * 2 ** min(16, max(0, failures - 1))))
