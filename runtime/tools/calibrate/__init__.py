"""A kit's limits set anew, by good images fresh from the line."""
