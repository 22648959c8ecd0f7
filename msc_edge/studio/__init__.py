"""`msc-edge studio`: from images to a kit in the browser. Pages call the library, long work runs in processes."""
