"""`msc-edge serve`: scoring over HTTP."""
