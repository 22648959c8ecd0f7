"""`msc-edge evaluate`: how well a kit finds anomalous images, measured on labelled images."""
