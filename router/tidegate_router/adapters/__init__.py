"""The router's outside: workers, the API server, files."""
