"""Tidegate's router: sends each inference request to the worker that answers it soonest."""
