"""`msc-edge info`, `verify` and `upgrade`: one kit described, checked, or written in the current format."""
