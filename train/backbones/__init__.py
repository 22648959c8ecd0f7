"""Backbones by name: one module for each family, and the registry of all; see docs/extend.md."""
