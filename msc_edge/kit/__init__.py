"""Kits: the manifest, and reading, checking, writing and upgrading the folder or .zip that holds it."""
