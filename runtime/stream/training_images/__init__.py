"""`msc-edge capture`: images for training from a camera, a video or a folder, before a kit exists."""
