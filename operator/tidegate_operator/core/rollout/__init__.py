"""Decisions about one ModelRollout: f(policy, sight, progress) -> outcome, without any I/O."""
