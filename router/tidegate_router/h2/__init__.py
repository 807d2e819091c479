"""The gRPC lane: HTTP/2 connections from clients and to workers, relayed frame by frame."""
