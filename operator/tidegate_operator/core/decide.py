"""One decision about one pool: a flat list of small steps (operator.md sections 1, 2, 8, 9)."""

from tidegate_operator.core.decision import Decision
from tidegate_operator.core.memory import PoolMemory
from tidegate_operator.core.observation import PoolObservation


def decide(observation: PoolObservation, memory: PoolMemory) -> Decision:
    """Return what must exist, change and be said about `observation.pool` now.

    Total: raises nothing for any observation. Called at every event and at least once a second.
    """
    del observation
    return Decision(memory=memory)
