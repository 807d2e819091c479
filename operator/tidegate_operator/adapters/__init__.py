"""Everything that speaks to the API server, to workers and to routers."""
