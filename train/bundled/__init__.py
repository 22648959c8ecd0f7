"""The weights of `edge-small` and `edge-small-2`, and their model cards."""
