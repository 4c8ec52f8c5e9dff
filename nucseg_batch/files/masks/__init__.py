"""The output store: OME-Zarr label images, pixels beside them, pyramids, plates, labels in place."""
