"""Decisions of the router: pure Python; time and randomness are arguments."""
