"""Decisions of the agent: no clock, no I/O."""
