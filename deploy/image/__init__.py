"""Programs that run in the image, or while it is built."""
