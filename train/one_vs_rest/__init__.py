"""The paper's protocol: one class is normal, all others are not, for each class in turn."""
