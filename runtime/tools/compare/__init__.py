"""`msc-edge compare`: two kits on the same labelled images."""
