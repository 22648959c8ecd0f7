"""The demo: a drawn data set, and training, export and scoring on it."""
