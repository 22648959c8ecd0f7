"""The roof: `msc-edge`, with the commands of training, export and runtime under it."""
