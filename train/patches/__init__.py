"""Patch embeddings: feature maps of the backbone, whitened, compared with a memory bank of patches of normal images."""
