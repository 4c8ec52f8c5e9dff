"""Outlines as ImageJ ROIs: a ZIP for each image that the ROI Manager opens, its ROIs on their slices and frames.

ImageJ's polygons with whole coordinates run along the edges of pixels, as ours do. A nucleus of several pieces or with
holes is a composite ROI.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator

import numpy as np
from roifile import ROI_TYPE, ImagejRoi

from nucseg_batch.arrays.outlines import Polygon
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.results.export.names import plane_suffix
from nucseg_batch.results.export.planes import LabelledPlane
from nucseg_batch.results.export.task import ExportTask, FormatRefusal

FARTHEST = 60535
"""Coordinates that ImageJ's files can hold."""
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0
"""Steps of a composite's path."""
_DATE = (1980, 1, 1, 0, 0, 0)
"""That of all entries, so that the same run gives the same files."""


class _Zip:
    """The ROIs of one image."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def add(self, plane: LabelledPlane) -> None:
        """Writes the nuclei of a plane."""
        before = plane_suffix(plane.row.t, plane.row.z)[1:]
        for outline in plane.outlines():
            name = f"{before} nucleus {outline.label}".strip()
            roi = _roi(name, outline.polygons)
            roi.t_position = 0 if plane.row.t is None else plane.row.t + 1
            roi.z_position = 0 if plane.row.z is None else plane.row.z + 1
            entry = zipfile.ZipInfo(f"{name}.roi", _DATE)
            self._archive.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)


@contextlib.contextmanager
def open_roi(task: ExportTask) -> Iterator[_Zip]:
    """Begins the ROIs of an image; Refused where it is larger than ImageJ's coordinates reach."""
    height, width = task.good[0].shape
    if max(height, width) > FARTHEST:
        raise FormatRefusal(
            f"{task.rows[0].image} is {height} x {width} pixels; ImageJ's ROIs reach to {FARTHEST}. "
            "Export it as geojson."
        )
    with whole_file(task.path, durable=False) as file, zipfile.ZipFile(file, "w") as archive:
        archive.comment = "\n".join(f"{name}: {value}" for name, value in task.about.items()).encode()[:65535]
        yield _Zip(archive)


def _roi(name: str, polygons: list[Polygon]) -> ImagejRoi:
    corners = np.concatenate([polygon[0] for polygon in polygons])
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    roi = ImagejRoi()
    roi.name = name
    roi.left, roi.top, roi.right, roi.bottom = left, top, right, bottom
    if len(polygons) == 1 and len(polygons[0]) == 1:
        roi.roitype = ROI_TYPE.TRACED
        roi.integer_coordinates = (polygons[0][0] - (left, top)).astype(np.int32)
        roi.n_coordinates = len(roi.integer_coordinates)
        return roi
    path: list[float] = []
    for ring in (ring for polygon in polygons for ring in polygon):
        for number, (x, y) in enumerate(ring.tolist()):
            path += [_LINE if number else _MOVE, x, y]
        path.append(_CLOSE)
    roi.roitype = ROI_TYPE.RECT
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    return roi
