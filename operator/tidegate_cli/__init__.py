"""The `tidegate` command, also `kubectl tidegate`."""
