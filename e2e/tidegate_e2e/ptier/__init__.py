"""Tier P: real operator, routers, etcd and API server; nodes and workers are played by us."""
