"""`make test`: brings the cluster up, runs every test once, and always ends what it started.

The cluster is up before pytest starts, so that no test's time limit covers the first build of
Kubernetes. Set TIDEGATE_KEEP=1 to keep it for the next run.
"""

import os
import signal
import subprocess
import sys
from types import FrameType

from tidegate_e2e import cluster, images
from tidegate_e2e.localcluster.progress import step
from tidegate_e2e.localcluster.system import TEST_PACKAGES, install_packages

INSTANCE = "test"


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


def main(arguments: list[str]) -> int:
    """Run pytest on tests/ and e2e/; return its exit code."""
    signal.signal(signal.SIGTERM, _stop)
    chosen = None
    try:
        install_packages(TEST_PACKAGES)
        chosen = cluster.choose(INSTANCE)
        with step("images for the cluster"):
            images.build()
            chosen.load_images()
        environment = os.environ | chosen.environment()
        command = [sys.executable, "-m", "pytest", *(arguments or ["tests", "e2e"])]
        return subprocess.run(command, env=environment, check=False).returncode
    finally:
        if chosen is not None and os.environ.get("TIDEGATE_KEEP") != "1":
            chosen.down()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
