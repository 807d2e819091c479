"""What commands print: tables and trees as kubectl does, colours on a terminal only."""

import sys
import time
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tidegate_cli.core.snapshot import Snapshot
from tidegate_cli.core.tree import Node, draw, headline

_PIPE_COLUMNS = 1000


def console() -> Console:
    """Return standard output; values are data, whatever brackets they hold: no markup."""
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return Console(markup=False, highlight=False, width=width)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print columns; a terminal folds what is too wide, a pipe gets all of it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name.upper(), overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def print_tree(node: Node) -> None:
    """Print a tree once."""
    console().print(tree(node))


def tree(node: Node) -> Tree:
    """Return a tree that rich can draw."""
    drawn = Tree(Text(node.text, style=node.tone), guide_style="dim")
    _grow(drawn, node.children)
    return drawn


def _grow(drawn: Tree, children: Iterable[Node]) -> None:
    for child in children:
        _grow(drawn.add(Text(child.text, style=child.tone)), child.children)


def follow(look: Callable[[], Snapshot], every_s: float) -> None:
    """Redraw the tree on a terminal, else print a line for each change; until interrupted."""
    if not sys.stdout.isatty():
        _follow_lines(look, every_s)
        return
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(tree(draw(look())), refresh=True)
            time.sleep(every_s)


def _follow_lines(look: Callable[[], Snapshot], every_s: float) -> None:
    before = ""
    while True:
        line = headline(look())
        if line != before:
            print(line, flush=True)
        before = line
        time.sleep(every_s)
