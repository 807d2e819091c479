"""Decides what a command sends and shows; no I/O."""
