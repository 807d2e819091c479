"""What the agent touches: files, networks, tritonserver, NVML."""
