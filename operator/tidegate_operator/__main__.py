"""`python -m tidegate_operator`: a small parent that starts the operator again when it ends.

Losing the Lease ends the child on purpose; the parent restarts it at once, so that the pod never
enters a crash loop. All children of one parent share an identity: they run one after the other, so
the next one may lead at once. The parent imports next to nothing, which keeps it small.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from types import FrameType

from tidegate_operator import settings

_QUICK_S = 2.0  # a child that lives shorter than this is broken at its start
_PAUSE_S = 5.0


def main() -> int:
    """Run children until told to end; answers --help and refuses bad flags by itself."""
    read = settings.read(sys.argv[1:])
    return _supervise(f"{read.pod_name}_{uuid.uuid4().hex[:8]}")


def _supervise(identity: str) -> int:
    command = [sys.executable, "-m", "tidegate_operator.child", *sys.argv[1:]]
    environment = os.environ | {"TIDEGATE_IDENTITY": identity}
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
        child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # noqa: S603  # our own interpreter and module
        if stopping.is_set():
            child.terminate()  # the signal came before there was a child to forward it to
        code = child.wait()
        if not stopping.is_set() and time.monotonic() - began_s < _QUICK_S:
            stopping.wait(_PAUSE_S)
    return code


if __name__ == "__main__":
    sys.exit(main())
