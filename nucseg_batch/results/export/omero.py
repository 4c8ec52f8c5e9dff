"""The nuclei as a CSV file that `omero metadata populate` of omero-metadata reads into an OMERO.table.

Its first row, `# header`, gives the type of each column. A row finds its object in OMERO by the names of plate and
well, if all images are on plates, and else by the name of its image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from nucseg_batch.columns import NUCLEUS_KEY, column_named, names
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.csv_rows import csv_row, csv_text
from nucseg_batch.results.export.task import RunExport
from nucseg_batch.results.export.wells import WellNames
from nucseg_batch.results.tables import PlaneRow

FILE = "omero.csv"
"""Name of the file."""
TYPES = {"string": "s", "int32": "l", "int64": "l", "float64": "d"}
"""Types of columns, as `# header` has them, by those of `columns.Column`."""
WELL = re.compile(r"[A-Za-z]+\d+")
"""Wells that omero-metadata finds by their names."""
DATASET = "Dataset Name"
"""The column by which images of one name in several datasets are told apart."""


def write_omero(whole: RunExport) -> list[str]:
    """Writes `omero.csv`: a row for each nucleus, in the order of the tables."""
    wells = WellNames(whole.run)
    by_well, folders = True, False
    moments = {"t": (False, False), "z": (False, False)}
    for row in _rows(whole):
        by_well &= WELL.fullmatch(wells.of(row)[1]) is not None
        folders |= "/" in row.image
        for axis, (some, none) in moments.items():
            there = getattr(row, axis) is not None
            moments[axis] = some or there, none or not there
    axes = [axis for axis, (some, _) in moments.items() if some]
    measured = [name for name in whole.run.nuclei_columns if name not in names(NUCLEUS_KEY)]
    place = [("Plate", "plate"), ("Well", "well")] if by_well else [("Image Name", "s")]
    place += [(DATASET, "s")] if folders and not by_well else []
    place += [("image_path", "s")]
    place += [(axis, "d" if moments[axis][1] else "l") for axis in axes]  # an empty cell is NaN, which is no integer
    columns = [*place, ("label", "l"), *zip(queried(measured), _types(measured), strict=True)]
    with whole_file(whole.folder / FILE) as file:
        kinds = [kind for _, kind in columns]
        file.write(csv_text([[f"# header {kinds[0]}", *kinds[1:]], [name for name, _ in columns]]).encode())
        for done, (row, pieces) in enumerate(whole.run.with_nuclei_in_pieces(_rows(whole)), start=1):
            start = csv_row(_place(row, wells, axes, by_well=by_well, folders=folders))
            for nuclei in pieces:
                places = [nuclei.columns.index(name) for name in ("label", *measured)]
                file.writelines(
                    f"{start},{','.join(cells[place] for place in places)}\n".encode() for cells in nuclei.rows
                )
            whole.progress(done, whole.planes)
    return []


def queried(columns: Sequence[str]) -> list[str]:
    """Names of columns of nuclei.csv as queries of OMERO.tables take them: letters, digits and `_`.

    A name that would be another's then keeps its own.
    """
    plain = [re.sub(r"\W", "_", name, flags=re.ASCII) for name in columns]
    return [name if plain.count(new) > 1 else new for name, new in zip(columns, plain, strict=True)]


def _types(columns: Sequence[str]) -> list[str]:
    return [TYPES[column_named(name).type] for name in columns]


def _rows(whole: RunExport) -> Iterator[PlaneRow]:
    return (row for row in whole.run.planes(whole.pattern) if row.segmented)


def _place(row: PlaneRow, wells: WellNames, axes: Sequence[str], *, by_well: bool, folders: bool) -> list[Any]:
    """The cells of a plane before those of its nuclei; None is an empty one."""
    folder, _, name = row.image.rpartition("/")
    plate, well = wells.of(row)
    cells: list[Any] = [plate.rpartition("/")[2], well] if by_well else [name]
    if folders and not by_well:
        cells.append(folder.rpartition("/")[2])
    return [*cells, row.image, *(getattr(row, axis) for axis in axes)]
