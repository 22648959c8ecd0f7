"""Where frames come from: cameras, network streams, video files, and folders that are being written to."""
