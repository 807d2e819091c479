"""Waiting in the router: fair order, measured drain, admission by time (router.md section 6)."""
