"""Local cluster, images, demo and test run: how Tidegate is tried on one bare machine."""
