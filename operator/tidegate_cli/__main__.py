"""`tidegate`, `kubectl tidegate` and `python -m tidegate_cli`."""

import sys

from tidegate_cli.app import run


def main() -> None:
    """Entry point of the package's scripts."""
    sys.exit(run())


if __name__ == "__main__":
    main()
