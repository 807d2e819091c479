"""`python3 -m tidegate_worker`: PID 1 of a worker container. See settings.py for its variables."""

import asyncio
import logging
import sys
from pathlib import Path

from tidegate_worker import agent, settings, telemetry

_log = logging.getLogger("tidegate_worker")
_TERMINATION_LOG = Path("/dev/termination-log")  # what the kubelet shows of an ended container


def main() -> int:
    """Return the exit status: 0 after a drain, 1 when the server gave up, 2 when misconfigured."""
    telemetry.configure_logging("info", "")
    try:
        read = settings.read()
        telemetry.configure_logging(read.log_level, read.revision)
        return asyncio.run(agent.run(read))
    except settings.SettingsError as error:
        _log.error("%s", error)
        if _TERMINATION_LOG.exists():
            _TERMINATION_LOG.write_text(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
