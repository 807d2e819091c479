"""`python -m tidegate_e2e.localcluster up|down|status|env [--instance NAME]`."""

import argparse
import contextlib
import sys

from tidegate_e2e.localcluster import lifecycle
from tidegate_e2e.localcluster.plan import INSTANCES, plan
from tidegate_e2e.localcluster.system import ClusterError


def main() -> int:
    """Run one verb; 1 with the reason on standard error when it fails."""
    parser = argparse.ArgumentParser(prog="python -m tidegate_e2e.localcluster")
    parser.add_argument("verb", choices=("up", "down", "status", "env"))
    parser.add_argument("--instance", choices=INSTANCES, default="demo")
    arguments = parser.parse_args()
    try:
        return _run(arguments.verb, arguments.instance)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(verb: str, instance: str) -> int:
    chosen = plan(instance)
    if verb == "up":
        lifecycle.up(chosen)
    elif verb == "down":
        lifecycle.down(chosen)
    elif verb == "status":
        programs = lifecycle.status(chosen)
        print("\n".join(f"{name}: {'runs' if up else 'ended'}" for name, up in programs.items()))
        return 0 if all(programs.values()) else 3
    else:
        with contextlib.redirect_stdout(sys.stderr):  # a shell evaluates our standard output
            values = lifecycle.environment(chosen)
        print(f"export KUBECONFIG={values['KUBECONFIG']}\nexport PATH={values['PATH']}:$PATH")
    return 0


if __name__ == "__main__":
    sys.exit(main())
