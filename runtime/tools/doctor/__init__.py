"""A look at the PC before it works: what is there, what is missing, and what to change."""
