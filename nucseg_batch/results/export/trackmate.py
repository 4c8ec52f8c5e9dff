"""Tracks as TrackMate, a plugin of Fiji, saves them: an XML file for each image.

A nucleus is a spot: its centre, the radius of a circle of its area, and the outline of its largest piece, without
holes. Coordinates are micrometres where the pixel size is known, and (0, 0) is the centre of the first pixel. A track
of TrackMate is all that descends from one nucleus, so a mother and her daughters are one track; `NUCSEG_TRACK` of a
spot is its track in tracks.csv. Slices of an image with z-slices are in one file, with their tracks.

The structure is that of TrackMate 7 (Ershov et al. 2022, doi:10.1038/s41592-022-01507-1), whose reader fails without
the elements of its settings. Without display settings it uses those of its user.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import IO
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from nucseg_batch.arrays.outlines import ring_area
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.names import printable
from nucseg_batch.results.export.planes import LabelledPlane, NucleusOutline
from nucseg_batch.results.export.task import ExportTask, linked_tracks, track_ids
from nucseg_batch.results.tables import PlaneKey
from nucseg_batch.results.tracks import ImageTracks

VERSION = "7.0.0"
"""Of the TrackMate that saves such files."""
_Features = tuple[tuple[str, str, str, bool], ...]
_SPOT_FEATURES: _Features = (
    ("QUALITY", "Quality", "QUALITY", False),
    ("POSITION_X", "X", "POSITION", False),
    ("POSITION_Y", "Y", "POSITION", False),
    ("POSITION_Z", "Z", "POSITION", False),
    ("POSITION_T", "T", "TIME", False),
    ("FRAME", "Frame", "NONE", True),
    ("RADIUS", "Radius", "LENGTH", False),
    ("VISIBILITY", "Visibility", "NONE", True),
    ("AREA", "Area", "AREA", False),
    ("NUCSEG_LABEL", "Label", "NONE", True),
    ("NUCSEG_TRACK", "Track in tracks.csv", "NONE", True),
)
_EDGE_FEATURES: _Features = (
    ("SPOT_SOURCE_ID", "Source spot ID", "NONE", True),
    ("SPOT_TARGET_ID", "Target spot ID", "NONE", True),
    ("LINK_COST", "Edge cost", "COST", False),
)
_TRACK_FEATURES: _Features = (
    ("TRACK_INDEX", "Track index", "NONE", True),
    ("TRACK_ID", "Track ID", "NONE", True),
    ("NUMBER_SPOTS", "Number of spots in track", "NONE", True),
    ("NUMBER_GAPS", "Number of gaps", "NONE", True),
    ("NUMBER_SPLITS", "Number of split events", "NONE", True),
    ("TRACK_DURATION", "Track duration", "TIME", False),
    ("TRACK_START", "Track start", "TIME", False),
    ("TRACK_STOP", "Track stop", "TIME", False),
)
"""Name, what TrackMate calls it, dimension, and whether it is a whole number, as TrackMate declares them."""
_UNSEEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold."""


class _Spots:
    """The spots of an image, which are written as they come, and the tracks after them."""

    def __init__(self, file: IO[bytes], task: ExportTask, tracks: ImageTracks) -> None:
        self._file, self._task, self._tracks = file, task, tracks
        spacing = task.spacing
        self._pixel = spacing.pixel or 1.0
        self._depth = spacing.depth or 1.0
        self._first: dict[PlaneKey, int] = {}
        count = 0
        for row in task.rows:
            self._first[row.key] = count
            count += len(tracks.ids.get(row.key, ()))
        self._frame: int | None = None
        unit = "pixel" if spacing.pixel is None else "micron"
        about = _plain("\n".join(f"{name}: {value}" for name, value in task.about.items()))
        self._write(f'<?xml version="1.0" encoding="UTF-8"?>\n<TrackMate version="{VERSION}">\n<Log>{about}</Log>\n')
        self._write(f'<Model spatialunits="{unit}" timeunits="frame">\n<FeatureDeclarations>\n')
        for kind, features in (("Spot", _SPOT_FEATURES), ("Edge", _EDGE_FEATURES), ("Track", _TRACK_FEATURES)):
            declared = (
                f'<Feature feature="{feature}" name="{name}" shortname="{name}" dimension="{dimension}" '
                f'isint="{str(whole).lower()}" />\n'
                for feature, name, dimension, whole in features
            )
            self._write(f"<{kind}Features>\n{''.join(declared)}</{kind}Features>\n")
        self._write(f'</FeatureDeclarations>\n<AllSpots nspots="{count}">\n')

    def add(self, plane: LabelledPlane) -> None:
        """Writes the nuclei of a plane; planes come in the order of their time points."""
        ids, row = track_ids(self._tracks, plane), plane.row
        assert row.t is not None
        if row.t != self._frame:
            self._end_frame()
            self._write(f'<SpotsInFrame frame="{row.t}">\n')
            self._frame = row.t
        nuclei = plane.nuclei
        area, y, x = (nuclei[name] * self._pixel**power for name, power in _MEASURED)
        sure = nuclei["confidence"] if "confidence" in nuclei.columns else np.ones(len(nuclei))
        for outline in plane.outlines():
            at = outline.place
            centre = float(x[at]), float(y[at])
            contour = self._contour(outline, centre)
            values = {
                "ID": self._first[row.key] + outline.label - 1,
                "name": f"nucleus {outline.label}",
                "QUALITY": 1.0 if math.isnan(sure[at]) else float(sure[at]),
                "POSITION_X": centre[0],
                "POSITION_Y": centre[1],
                "POSITION_Z": (row.z or 0) * self._depth,
                "POSITION_T": float(row.t),
                "FRAME": row.t,
                "RADIUS": math.sqrt(float(area[at]) / math.pi),
                "VISIBILITY": 1,
                "AREA": float(area[at]),
                "NUCSEG_LABEL": outline.label,
                "NUCSEG_TRACK": int(ids[outline.label - 1]),
                "ROI_N_POINTS": contour.count(" ") // 2 + 1,
            }
            self._write(f"<Spot{_attributes(values)}>{contour}</Spot>\n")

    def finish(self) -> None:
        """Writes the tracks, and what TrackMate has to know of the image."""
        self._end_frame()
        self._write("</AllSpots>\n<AllTracks>\n")
        numbers = []
        for number, edges in enumerate(self._lineages()):
            numbers.append(number)
            frames = [frame for edge in edges for frame in edge[2:]]
            sources = [source for source, *_ in edges]
            values = {
                "name": f"Track_{number}",
                "TRACK_INDEX": number,
                "TRACK_ID": number,
                "NUMBER_SPOTS": len(edges) + 1,
                "NUMBER_GAPS": sum(late - early > 1 for *_, early, late in edges),
                "NUMBER_SPLITS": len(sources) - len(set(sources)),
                "TRACK_DURATION": float(max(frames) - min(frames)),
                "TRACK_START": float(min(frames)),
                "TRACK_STOP": float(max(frames)),
            }
            self._write(f"<Track{_attributes(values)}>\n")
            for source, target, *_ in edges:
                ends = {"SPOT_SOURCE_ID": source, "SPOT_TARGET_ID": target, "LINK_COST": -1.0}
                self._write(f"<Edge{_attributes(ends)} />\n")
            self._write("</Track>\n")
        shown = "".join(f'<TrackID TRACK_ID="{number}" />\n' for number in numbers)
        self._write(f"</AllTracks>\n<FilteredTracks>\n{shown}</FilteredTracks>\n</Model>\n{self._settings()}")
        self._write('<GUIState state="ConfigureViews" />\n</TrackMate>\n')

    def _contour(self, outline: NucleusOutline, centre: tuple[float, float]) -> str:
        """Corners x, y of the outer ring of the largest piece, relative to the centre; corners of pixels are halves."""
        ring = max((polygon[0] for polygon in outline.polygons), key=ring_area)
        corners = (ring - 0.5) * self._pixel - np.array(centre)
        return " ".join(f"{value:.7g}" for value in corners.ravel().tolist())

    def _lineages(self) -> list[list[tuple[int, int, int, int]]]:
        """Of all that descends from one nucleus, the edges: first and second spot, and their time points.

        A nucleus of which nothing is linked is no track of TrackMate.
        """
        last: dict[tuple[str, int], tuple[int, int]] = {}
        found: dict[tuple[str, int], list[tuple[int, int, int, int]]] = {}
        oldest: dict[tuple[str, int], tuple[str, int]] = {}
        for row in sorted(self._task.good, key=lambda row: (row.depth, row.time)):
            assert row.t is not None
            z, first = row.key[2], self._first[row.key]
            for spot, track in enumerate(self._tracks.ids.get(row.key, np.zeros(0, np.int64)).tolist(), start=first):
                own, mother = (z, track), (z, self._tracks.parents.get((z, track), 0))
                before = last.get(own) or last.get(mother)
                oldest.setdefault(own, oldest.get(mother, own))
                if before is not None:
                    found.setdefault(oldest[own], []).append((before[0], spot, before[1], row.t))
                last[own] = spot, row.t
        return list(found.values())

    def _settings(self) -> str:
        rows = self._task.good
        height, width = rows[0].shape
        frames, slices = 1 + max(row.t or 0 for row in rows), 1 + max(row.z or 0 for row in rows)
        image = {
            "filename": printable(rows[0].image).rpartition("/")[2],
            "folder": "",
            "width": width,
            "height": height,
            "nslices": slices,
            "nframes": frames,
            "pixelwidth": self._pixel,
            "pixelheight": self._pixel,
            "voxeldepth": self._depth,
            "timeinterval": 1.0,
        }
        ends = {"xstart": 0, "xend": width - 1, "ystart": 0, "yend": height - 1, "zstart": 0, "zend": slices - 1}
        return (
            f"<Settings>\n<ImageData{_attributes(image)} />\n"
            f"<BasicSettings{_attributes({**ends, 'tstart': 0, 'tend': frames - 1})} />\n"
            f'<DetectorSettings RADIUS="{10 * self._pixel:.7g}" DETECTOR_NAME="MANUAL_DETECTOR" />\n'
            '<InitialSpotFilter feature="QUALITY" value="0.0" isabove="true" />\n<SpotFilterCollection />\n'
            '<TrackerSettings TRACKER_NAME="MANUAL_TRACKER" />\n<TrackFilterCollection />\n'
            "<AnalyzerCollection>\n<SpotAnalyzers />\n<EdgeAnalyzers />\n<TrackAnalyzers />\n</AnalyzerCollection>\n"
            "</Settings>\n"
        )

    def _end_frame(self) -> None:
        if self._frame is not None:
            self._write("</SpotsInFrame>\n")

    def _write(self, text: str) -> None:
        self._file.write(text.encode())


_MEASURED = (("area", 2), ("centroid-0", 1), ("centroid-1", 1))
"""Columns of nuclei.csv, and the power of the pixel size that they are multiplied by."""


@contextlib.contextmanager
def open_trackmate(task: ExportTask) -> Iterator[_Spots]:
    """Begins the file of an image; FormatRefusal where its nuclei are not linked over time points."""
    tracks = linked_tracks(task)
    with whole_file(task.path, durable=False) as file:
        spots = _Spots(file, task, tracks)
        yield spots
        spots.finish()


def _attributes(values: Mapping[str, object]) -> str:
    shown = ((name, f"{value:.7g}" if isinstance(value, float) else str(value)) for name, value in values.items())
    return "".join(f" {name}={quoteattr(_UNSEEN.sub('?', text))}" for name, text in shown)


def _plain(text: str) -> str:
    return escape(_UNSEEN.sub("?", text))
