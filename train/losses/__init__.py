"""The losses of fine-tuning, one per module."""
