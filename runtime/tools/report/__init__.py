"""Reports to click through: one HTML file each, with everything in it."""
