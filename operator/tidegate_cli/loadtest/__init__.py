"""`tidegate loadtest`: fast clients, the loops that drive them, and what they tell."""
