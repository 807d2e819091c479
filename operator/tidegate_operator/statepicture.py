"""`python -m tidegate_operator.statepicture FILE`: draw the states in a page anew."""

import sys
from pathlib import Path

from tidegate_operator.core.rollout.picture import redraw

if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(redraw(page.read_text("utf-8")), "utf-8")
