"""Metrics of anomaly maps against ground-truth masks."""
