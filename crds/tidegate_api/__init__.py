"""The contract between Tidegate's programs: resources, worker and router state, names."""
