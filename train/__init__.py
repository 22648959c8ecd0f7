"""Training: fine-tunes a pretrained backbone on pictures of good parts (Reiss & Hoshen, arXiv 2106.03844)."""
