"""How good a kit is, on pictures whose truth is known."""
