"""nucseg-batch: nuclei in large collections of microscope images, to OME-Zarr masks and CSV statistics.

From Python: `segment` does a collection as the command line does, `segment_array` segments dask and zarr arrays of any
size lazily, `open_images` opens a collection as dask arrays, `Predictor` labels arrays in memory, `open_masks`,
`read_nuclei`, `read_images`, `read_volumes`, `read_tracks` and `read_wells` give what a run wrote, and `evaluate`
and `evaluate_tracks` score it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

if TYPE_CHECKING:
    from nucseg_batch.api.arrays import Images, open_images, segment_array
    from nucseg_batch.api.evaluate import evaluate, evaluate_tracks
    from nucseg_batch.api.predictor import Predictor
    from nucseg_batch.api.prepare import prepare_image
    from nucseg_batch.api.segment import SegmentResult, segment
    from nucseg_batch.api.tables import read_images, read_nuclei, read_tracks, read_volumes, read_wells
    from nucseg_batch.arrays.prepared import PreparedImage
    from nucseg_batch.files.run.masks import Masks, open_masks
    from nucseg_batch.settings import SegmentSettings

__all__ = [
    "Images",
    "Masks",
    "Predictor",
    "PreparedImage",
    "SegmentResult",
    "SegmentSettings",
    "__version__",
    "evaluate",
    "evaluate_tracks",
    "open_images",
    "open_masks",
    "prepare_image",
    "read_images",
    "read_nuclei",
    "read_tracks",
    "read_volumes",
    "read_wells",
    "segment",
    "segment_array",
]

_PLACES = {
    "Images": "api.arrays",
    "Masks": "files.run.masks",
    "Predictor": "api.predictor",
    "PreparedImage": "arrays.prepared",
    "SegmentResult": "api.segment",
    "SegmentSettings": "settings",
    "evaluate": "api.evaluate",
    "evaluate_tracks": "api.evaluate",
    "open_images": "api.arrays",
    "open_masks": "files.run.masks",
    "prepare_image": "api.prepare",
    "read_images": "api.tables",
    "read_nuclei": "api.tables",
    "read_tracks": "api.tables",
    "read_volumes": "api.tables",
    "read_wells": "api.tables",
    "segment": "api.segment",
    "segment_array": "api.arrays",
}


def __getattr__(name: str) -> Any:
    """Loads what is public when it is first used, so that the command line starts without zarr and Keras."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"nucseg_batch.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
