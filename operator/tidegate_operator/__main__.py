"""`python -m tidegate_operator`: a small parent that starts the operator again when it ends.

Losing the Lease ends the child on purpose; the parent restarts it at once, so that the pod never
enters a crash loop. The child is the same command with TIDEGATE_CHILD=1.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

import uvloop

from tidegate_operator import leader, settings, telemetry

_QUICK_S = 2.0  # a child that lives shorter than this is broken at its start
_PAUSE_S = 5.0


def main() -> int:
    """Run as parent or child."""
    read = settings.read(sys.argv[1:])
    if os.environ.get("TIDEGATE_CHILD") == "1":
        telemetry.configure_logging(read.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(leader.main(read))
    return _supervise()


def _supervise() -> int:
    command = [sys.executable, "-m", "tidegate_operator", *sys.argv[1:]]
    stopping = threading.Event()
    child: subprocess.Popen[bytes] | None = None

    def forward(_number: int, _frame: FrameType | None) -> None:
        stopping.set()
        if child is not None:
            child.terminate()

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    code = 0
    while not stopping.is_set():
        began_s = time.monotonic()
        # The child reads its input's end as the parent's death.
        child = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            command, env=os.environ | {"TIDEGATE_CHILD": "1"}, stdin=subprocess.PIPE
        )
        if stopping.is_set():
            child.terminate()  # the signal came before there was a child to forward it to
        code = child.wait()
        if not stopping.is_set() and time.monotonic() - began_s < _QUICK_S:
            stopping.wait(_PAUSE_S)
    return code


if __name__ == "__main__":
    sys.exit(main())
