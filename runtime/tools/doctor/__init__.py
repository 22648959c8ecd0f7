"""`msc-edge doctor`: checks of a PC before it scores camera frames."""
