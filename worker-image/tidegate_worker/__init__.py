"""The worker agent: PID 1 of a worker, supervises tritonserver and reports its state."""
