"""Decisions of the control plane: f(policy, observation, memory) -> decision, without any I/O."""
