"""How good a kit is, on images whose truth is known."""
