"""Distillation: train a small student network to reproduce the embeddings of a larger teacher, without labels."""
