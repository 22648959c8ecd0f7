"""The weights of the `edge-small` backbone, and their model card."""
