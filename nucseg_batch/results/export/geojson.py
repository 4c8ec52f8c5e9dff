"""Outlines as GeoJSON for QuPath: a FeatureCollection for each image, with what was measured of each nucleus.

Coordinates are pixels along the edges of pixels, so that a polygon's area is the number of the nucleus' pixels. Names
of objects, planes and measurements are those that QuPath 0.4 and later write themselves.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from typing import IO

import numpy as np

from nucseg_batch.arrays.outlines import Polygon, Ring
from nucseg_batch.columns import PLANE_KEY, names
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.names import printable
from nucseg_batch.results.export.planes import LabelledPlane, NucleusOutline
from nucseg_batch.results.export.task import ExportTask
from nucseg_batch.results.tables import PlaneNuclei, PlaneRow

CLASSIFICATION = '{"name":"Nucleus","color":[255,220,0]}'
"""QuPath's class of the objects."""


class _Collection:
    """The features of one image."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._first = True

    def add(self, plane: LabelledPlane) -> None:
        """Writes the nuclei of a plane, one a line."""
        measurements = _measurements(plane.nuclei)
        for outline in plane.outlines():
            text = _feature(plane.row, outline, measurements[outline.place])
            self._file.write(("\n" if self._first else ",\n").encode() + text.encode())
            self._first = False


@contextlib.contextmanager
def open_geojson(task: ExportTask) -> Iterator[_Collection]:
    """Begins the outlines of an image."""
    with whole_file(task.path, durable=False) as file:
        about = {**task.about, "image": printable(task.rows[0].image)}
        missing = len(task.rows) - len(task.good)
        if missing:
            about["planes_without_mask"] = str(missing)
        file.write(f'{{"type":"FeatureCollection","info":{json.dumps(about)},"features":['.encode())
        yield _Collection(file)
        file.write(b"\n]}\n")


def _feature(row: PlaneRow, outline: NucleusOutline, measurements: str) -> str:
    place = "\n".join((*row.key, str(outline.label)))
    number = uuid.uuid5(uuid.NAMESPACE_URL, place)
    return (
        f'{{"type":"Feature","id":"{number}","geometry":{_geometry(row, outline.polygons)},'
        f'"properties":{{"objectType":"detection","name":"nucleus {outline.label}","classification":{CLASSIFICATION},'
        f'"measurements":{{{measurements}}}}}}}'
    )


def _geometry(row: PlaneRow, polygons: list[Polygon]) -> str:
    shapes = ["[" + ",".join(map(_closed, polygon)) + "]" for polygon in polygons]
    kind, coordinates = ("Polygon", shapes[0]) if len(shapes) == 1 else ("MultiPolygon", f"[{','.join(shapes)}]")
    plane = f',"plane":{{"c":-1,"z":{row.z or 0},"t":{row.t or 0}}}' if row.t or row.z else ""
    return f'{{"type":"{kind}","coordinates":{coordinates}{plane}}}'


def _closed(ring: Ring) -> str:
    """A ring whose first corner is repeated at its end."""
    corners = ring.tolist()
    return str([*corners, corners[0]]).replace(" ", "")


def _measurements(nuclei: PlaneNuclei) -> list[str]:
    """Of each nucleus its label and the numbers of nuclei.csv, as written there; empty cells are left out."""
    shown: list[tuple[str, int, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]] = []
    for place, name in enumerate(nuclei.columns):
        if name not in names(PLANE_KEY):
            with contextlib.suppress(ValueError):  # a column of text is no measurement
                shown.append((json.dumps(name), place, np.isfinite(nuclei[name])))
    return [
        ",".join(f"{name}:{row[place]}" for name, place, finite in shown if finite[number])
        for number, row in enumerate(nuclei.rows)
    ]
