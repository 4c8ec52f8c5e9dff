"""Segments a folder from Python, and looks at what was found.

    python examples/python_api.py IMAGES OUT.zarr

IMAGES is a folder, file, plate or store; a second call reads what the first wrote. Needs pandas.
"""

from __future__ import annotations

import argparse

import nucseg_batch


def main() -> None:
    """Segments, and prints the images that deserve a look."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images")
    parser.add_argument("store")
    arguments = parser.parse_args()

    result = nucseg_batch.segment(arguments.images, arguments.store, diameter=26, tell=print)
    print(f"{result.nuclei} nuclei in {result.images} images, {len(result.failures)} failed")

    images = nucseg_batch.read_images(result.store, columns=["image", "nuclei", "confidence"], library="pandas")
    print(images.sort_values("confidence").head())

    nuclei = nucseg_batch.read_nuclei(result.store, columns=["image", "label", "area"], library="pandas")
    print(nuclei.groupby("image")["area"].median())

    masks = nucseg_batch.open_masks(result.store)
    for name in masks:
        print(name, masks[name].shape, masks[name].max())


if __name__ == "__main__":
    main()
