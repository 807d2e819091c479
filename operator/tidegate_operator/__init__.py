"""Tidegate's control plane: reconciles InferencePools into Triton workers and RouteTables."""
