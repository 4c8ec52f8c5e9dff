"""What IN means: images found, their channels put together, their headers scanned."""
