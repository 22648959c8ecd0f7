"""HTML reports: one file each, which needs nothing else."""
