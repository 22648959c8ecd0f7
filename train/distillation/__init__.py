"""Distillation: a small network learns to see as a large one does, from images without labels."""
