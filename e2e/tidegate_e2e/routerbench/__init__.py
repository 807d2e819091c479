"""`make bench-router`: every router side by side, each on one core, on the same workers."""
