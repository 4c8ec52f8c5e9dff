"""Tracks as the Cell Tracking Challenge has results: `01_RES/mask000.tif` and so on, and `01_RES/res_track.txt`.

A pixel has the number of its track. The text has a line for each track: number, first frame, last frame, and the
number of the track that it comes from, or 0. The format has no gaps: after one a track goes on under a new number,
whose mother is the one before. Images with z-slices, whose slices have tracks of their own, are several sequences:
`01_RES` for the first slice, `02_RES` for the next. See Maška et al. 2014 (doi:10.1093/bioinformatics/btu080).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from nucseg_batch.files.atomic_write import whole_folder
from nucseg_batch.results.export.planes import LabelledPlane
from nucseg_batch.results.export.task import ExportTask, FormatRefusal, linked_tracks, track_ids
from nucseg_batch.results.tables import PlaneKey, PlaneRow
from nucseg_batch.results.tracks import ImageTracks

MOST = 2**16 - 1
"""The largest number that the masks, which have 16 bits, can hold."""


class _Sequences:
    """The frames of an image, in any order."""

    def __init__(self, folder: Path, task: ExportTask, tracks: ImageTracks) -> None:
        self._folder, self._task, self._tracks = folder, task, tracks
        self._frames = 1 + max(row.time for row in task.rows)
        self._digits = max(3, len(str(self._frames - 1)))
        self._numbers, self._spans = dict[PlaneKey, NDArray[np.uint16]](), dict[int, list[tuple[int, int, int, int]]]()
        for depth in sorted({row.depth for row in task.rows}):
            rows = [row for row in task.rows if row.depth == depth]
            self._place(rows[0]).mkdir()
            self._number(rows)

    def add(self, plane: LabelledPlane) -> None:
        """Writes the mask of a frame."""
        track_ids(self._tracks, plane)
        known = self._numbers[plane.row.key]
        if plane.large:
            side = -(-plane.chunk // 16) * 16  # TIFF allows multiples of 16
            tiles = (np.take(known, tile, mode="clip") for tile in plane.tiles(side))
            self._write(plane.row, tiles, tile=(side, side))
        else:
            self._write(plane.row, np.take(known, plane.mask, mode="clip"))

    def finish(self) -> None:
        """Writes empty masks of frames that have none, and the tracks."""
        for row in self._task.rows:
            if not row.segmented:
                self._write(row, np.zeros(self._task.good[0].shape, np.uint16))
        for depth, spans in self._spans.items():
            row = next(row for row in self._task.rows if row.depth == depth)
            text = "".join(f"{number} {first} {last} {parent}\n" for number, first, last, parent in sorted(spans))
            (self._place(row) / "res_track.txt").write_text(text, encoding="ascii")

    def _number(self, rows: list[PlaneRow]) -> None:
        """Finds the numbers of one z-slice: those of tracks, and new ones after gaps."""
        tracks = self._tracks
        z, spans = rows[0].key[2], self._spans.setdefault(rows[0].depth, [])
        newest, now = max((int(tracks.ids[row.key].max()) for row in rows if row.key in tracks.ids), default=0), {}
        for row in sorted(rows, key=lambda row: row.time):
            ids = tracks.ids.get(row.key, np.zeros(0, np.int64)).tolist()
            numbers = [0]
            for track in ids:
                if track not in now:
                    mother = tracks.parents.get((z, track), 0)
                    now[track] = len(spans)
                    spans.append((track, row.time, row.time, spans[now[mother]][0] if mother else 0))
                elif spans[now[track]][2] < row.time - 1:
                    newest, before = newest + 1, spans[now[track]][0]
                    now[track] = len(spans)
                    spans.append((newest, row.time, row.time, before))
                number, first, _, parent = spans[now[track]]
                spans[now[track]] = number, first, row.time, parent
                numbers.append(number)
            if max(numbers) > MOST:
                raise FormatRefusal(f"{row.image}: it has more than {MOST} tracks, which 16-bit masks cannot hold.")
            self._numbers[row.key] = np.array(numbers, np.uint16)

    def _place(self, row: PlaneRow) -> Path:
        return self._folder / f"{row.depth + 1:02}_RES"

    def _write(self, row: PlaneRow, data: NDArray[np.uint16] | Iterator[NDArray[np.uint16]], **options: object) -> None:
        tifffile.imwrite(
            self._place(row) / f"mask{row.time:0{self._digits}}.tif",
            data,
            shape=self._task.good[0].shape,
            dtype=np.uint16,
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            software=self._task.about["software"],
            **options,
        )


@contextlib.contextmanager
def open_ctc(task: ExportTask) -> Iterator[_Sequences]:
    """Begins the folder of an image; FormatRefusal where its nuclei are not all linked."""
    task.check_done()
    tracks = linked_tracks(task)
    with whole_folder(task.path) as folder:
        sequences = _Sequences(folder, task, tracks)
        yield sequences
        sequences.finish()
