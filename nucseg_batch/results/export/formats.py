"""Which formats there are, and what must be installed for them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from nucseg_batch.errors import UsageError
from nucseg_batch.results.export.task import ImageFormat, RunFormat

_HERE = "nucseg_batch.results.export"
IMAGE_FORMATS = {
    "tiff": ImageFormat(".tif", f"{_HERE}.tiff:open_tiff", labels=True, volumes=True),
    "png": ImageFormat(".png", f"{_HERE}.png:open_png", per="plane", labels=True),
    "geojson": ImageFormat(".geojson", f"{_HERE}.geojson:open_geojson"),
    "roi": ImageFormat(".zip", f"{_HERE}.roi:open_roi", needs=("roifile",), extra="export"),
    "ctc": ImageFormat("", f"{_HERE}.ctc:open_ctc", tracks=True, is_store=True, witness="01_RES/res_track.txt"),
    "trackmate": ImageFormat(".xml", f"{_HERE}.trackmate:open_trackmate", tracks=True),
    "ngio": ImageFormat(
        "", f"{_HERE}.ngio:open_ngio", needs=("ngio", "pandas", "pyarrow"), extra="ngio", is_store=True
    ),
    "spatialdata": ImageFormat(
        ".zarr",
        f"{_HERE}.spatial:open_spatialdata",
        needs=("spatialdata",),
        extra="spatialdata",
        wells=True,
        is_store=True,
    ),
}
"""Formats with a file for each image, by name."""
RUN_FORMATS = {
    "coco": RunFormat(("coco.json",), f"{_HERE}.coco:write_coco"),
    "anndata": RunFormat(("nuclei.h5ad",), f"{_HERE}.h5ad:write_h5ad", needs=("anndata",), extra="anndata"),
    "cellprofiler": RunFormat(
        ("cellprofiler/Experiment.csv", "cellprofiler/Image.csv", "cellprofiler/Nuclei.csv"),
        f"{_HERE}.cellprofiler:write_cellprofiler",
    ),
    "omero": RunFormat(("omero.csv",), f"{_HERE}.omero:write_omero"),
    "parquet": RunFormat(
        ("images.parquet", "nuclei.parquet"), f"{_HERE}.parquet:write_parquet", needs=("pyarrow",), extra="export"
    ),
}
"""Formats with few files for all images, by name."""
FORMATS: dict[str, ImageFormat | RunFormat] = {**IMAGE_FORMATS, **RUN_FORMATS}
"""All of them."""


def check_installed(names: Sequence[str]) -> None:
    """Raises UsageError, with what to install, where a format needs a library that is not there."""
    for name in names:
        missing = [module for module in FORMATS[name].needs if importlib.util.find_spec(module) is None]
        if missing:
            modules = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
            raise UsageError(
                f"--format {name} needs {modules}, which {'are' if len(missing) > 1 else 'is'} not installed: "
                f"pip install 'nucseg-batch[{FORMATS[name].extra}]'"
            )


def load(function: str) -> Any:
    """The function that a format names as `module:function`."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)
