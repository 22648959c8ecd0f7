"""A kit's limits set anew, by good pictures fresh from the line."""
