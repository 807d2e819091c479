"""HTTP/2 and gRPC's framing on it, as a relay needs them. Pure."""
