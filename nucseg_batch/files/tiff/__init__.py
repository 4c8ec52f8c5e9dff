"""TIFF files of any kind: which pages are the image, and windows of its planes."""
