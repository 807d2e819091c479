"""The picture of docs/rollouts.md, drawn from the transitions that the machine looks up."""

from tidegate_operator.core.rollout.model import State
from tidegate_operator.core.rollout.transitions import TRANSITIONS, Row
from tidegate_operator.core.rollout.view import MOVING

BEGIN = "<!-- states: drawn by make generate -->"
END = "<!-- states: end -->"


def picture() -> str:
    """Return the block: a mermaid state diagram and a table of every transition."""
    lines = ["```mermaid", "stateDiagram-v2", *_edges(), "```", "", *_table()]
    return "\n".join(lines)


def redraw(page: str) -> str:
    """Return the page with its block drawn anew. ValueError: the page has no such block."""
    head, found, rest = page.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the page has no block between {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{picture()}\n{END}{tail}"


def _edges() -> list[str]:
    """Arrows of rows that hold in few states; the others are told in the table alone."""
    edges = [f"    [*] --> {state}" for state in (State.FIRST_DEPLOY, State.HEALTHY)]
    for row in TRANSITIONS:
        if row.states == MOVING:
            edges.append(f"    Moving --> {row.target}: {row.trigger.value}")
        elif len(row.states) < len(MOVING):
            edges.extend(
                f"    {state} --> {row.target}: {row.trigger.value}"
                for state in State
                if state in row.states
            )
    inner = [f"        {state}" for state in State if state in MOVING]
    return ["    state Moving {", *inner, "    }", *edges]


def _table() -> list[str]:
    rows = [
        f"| {_sources(row)} | {row.trigger.value} | {row.target} | {row.meaning} |"
        for row in TRANSITIONS
    ]
    return ["| In | When | To | |", "|---|---|---|---|", *rows]


def _sources(row: Row) -> str:
    if row.states == MOVING:
        return "Moving"
    if len(row.states) == len(State):
        return "any"
    missing = [state for state in State if state not in row.states]
    if len(missing) == 1:
        return f"any but {missing[0]}"
    return ", ".join(state for state in State if state in row.states)
