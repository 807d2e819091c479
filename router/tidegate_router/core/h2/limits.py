"""What one connection may ask of us (router.md section 10); beyond it: ENHANCE_YOUR_CALM."""

from dataclasses import dataclass

from tidegate_router.core.h2.frames import Code, ConnectionFault

MAX_STREAMS = 100
STREAM_WINDOW_BYTES = 64 * 1024
CONNECTION_WINDOW_BYTES = 1024 * 1024
MAX_BLOCK_BYTES = 32 * 1024
MAX_CONTINUATIONS = 8
MAX_RESETS = 100  # per PERIOD_S, as the following
MAX_CONTROLS = 100  # PING and SETTINGS
MAX_EMPTY = 1000  # DATA without content that ends nothing
MAX_QUEUED_CONTROLS = 1000
PERIOD_S = 10.0


@dataclass(slots=True)
class Rate:
    """How often something came in the current period of PERIOD_S."""

    limit: int
    what: str
    _count: int = 0
    _since_s: float = 0.0

    def note(self, now_s: float) -> None:
        """Count one; ConnectionFault beyond the limit."""
        if now_s - self._since_s >= PERIOD_S:
            self._since_s, self._count = now_s, 0
        self._count += 1
        if self._count > self.limit:
            text = f"more than {self.limit} {self.what} in {PERIOD_S:.0f} s"
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, text)


def check_block(size_bytes: int, continuations: int) -> None:
    """Refuse a header block that costs too much before it is whole."""
    if size_bytes > MAX_BLOCK_BYTES:
        text = f"a header block beyond {MAX_BLOCK_BYTES} bytes"
        raise ConnectionFault(Code.ENHANCE_YOUR_CALM, text)
    if continuations > MAX_CONTINUATIONS:
        text = f"more than {MAX_CONTINUATIONS} CONTINUATION frames"
        raise ConnectionFault(Code.ENHANCE_YOUR_CALM, text)
