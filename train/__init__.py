"""Training: fine-tune a pretrained backbone on normal images (Reiss & Hoshen, arXiv 2106.03844)."""
