"""Zarr stores as input: their images, from metadata to windows of pixels, with guards."""
