"""The control plane: InferencePools become Triton workers, scores and RouteTables."""
