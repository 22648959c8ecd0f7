"""The demonstration: a drawn data set, and the whole way from good pictures to scores on it."""
