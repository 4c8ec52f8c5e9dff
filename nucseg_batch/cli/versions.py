"""What `--version` prints."""

from __future__ import annotations

import platform
import sys

from nucseg_batch import __version__

PACKAGES = ("keras", "tensorflow", "tensorflow_cpu", "jax", "torch", "zarr", "dask", "distributed", "numpy", "tifffile")
"""Packages on which results or speed depend; found without importing them. Those that are not there are left out."""


def versions(*, all_of_them: bool) -> list[str]:
    """Lines: the version of this program, and where all are asked for those of Python and of what it works with."""
    from importlib import metadata

    lines = [f"nucseg-batch {__version__}"]
    if not all_of_them:
        return lines
    lines.append(f"python {platform.python_version()} ({sys.executable}), {platform.platform()}")
    for name in PACKAGES:
        try:
            lines.append(f"{name.replace('_', '-')} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return lines
