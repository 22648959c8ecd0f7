"""`msc-edge learn`: what a station has learned for a kit, and what it may learn."""
