"""The demonstration: a drawn data set, and the whole way from good images to scores on it."""
