"""`python -m tidegate_operator`: a small parent that starts the operator again when it ends.

Losing the Lease ends the child on purpose; the parent restarts it at once, so that the pod never
enters a crash loop. The child is the same command with TIDEGATE_CHILD=1.
"""

import asyncio
import os
import signal
import subprocess
import sys
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
    stopping = False
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if child is not None:
            child.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    while not stopping:
        began_s = time.monotonic()
        child = subprocess.Popen(command, env=os.environ | {"TIDEGATE_CHILD": "1"})  # noqa: S603  # our own interpreter and module
        code = child.wait()
        if stopping:
            return code
        if time.monotonic() - began_s < _QUICK_S:
            time.sleep(_PAUSE_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
