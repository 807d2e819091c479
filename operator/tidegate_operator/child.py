"""`python -m tidegate_operator.child`: the operator itself, run by its small parent.

TIDEGATE_IDENTITY names the holder of the Lease; standard input ends when the parent does.
"""

import asyncio
import os
import sys

import uvloop

from tidegate_operator import leader, settings, telemetry


def main() -> int:
    """Run the operator in this process."""
    read = settings.read(sys.argv[1:])
    telemetry.configure_logging(read.log_level)
    identity = os.environ.get("TIDEGATE_IDENTITY", read.pod_name)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(leader.main(read, identity))


if __name__ == "__main__":
    sys.exit(main())
