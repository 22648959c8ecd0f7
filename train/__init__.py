"""Training: fine-tunes a pretrained backbone on images of good parts (Reiss & Hoshen, arXiv 2106.03844)."""
