"""`msc-edge calibrate`: new limits for a kit, from recent normal images of the line."""
