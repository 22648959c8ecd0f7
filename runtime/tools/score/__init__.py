"""`msc-edge score`: a folder scored from the command line."""
