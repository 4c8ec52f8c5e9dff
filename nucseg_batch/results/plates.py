"""Which well of which plate an image is from: by the plates of an OME-Zarr store, or as microscopes name files.

Names are believed where nearly all images of a folder have a well, and there are several rows and columns of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nucseg_batch.files.masks.nodes import read_attributes
from nucseg_batch.files.run_layout import path_beside
from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.plan import PlaneStatus
from nucseg_batch.results.tables import PlaneRow

NUMBERED = re.compile(r"(?P<prefix>)r(?P<r>\d{2})c(?P<c>\d{2})f\d+")
"""Operetta and Opera Phenix: rows are numbers, too."""
LETTERED = (
    re.compile(r"(?P<prefix>.*?)(?P<row>[A-P]) - (?P<c>\d{1,2})\("),
    re.compile(
        r"(?P<prefix>(?:.*?[^A-Za-z0-9])??)(?P<row>A[A-F]|[A-Z])(?P<c>0?[1-9]|[1-4]\d)(?=$|[^A-Za-z0-9]|f\d+d\d)"
    ),
)
"""IN Cell; and `A01`, `B02_s1`, `plate1_P24_...`, as most others have it."""
WELL_NAME = re.compile(r"(?P<row>[A-Z]|A[A-F])0*(?P<column>[1-9]\d?)")
"""A well as people name it: A1, A01, AF48."""
FORMATS = ((2, 3), (3, 4), (4, 6), (6, 8), (8, 12), (16, 24), (32, 48))
"""Rows and columns of the plates that there are."""
BETWEEN = "_-. "
"""What stands between the name of a plate and a well."""
BELIEVED = 0.95
"""Share of the images of a folder whose names must have a well."""
MOST_PREFIXES = 500
"""With more beginnings of names than this in a folder, they name no plates."""

NO_PLATE = "its images are on no plate: neither the store nor the names of the images say wells."
"""Why a run has no wells."""

Place = tuple[int, int]
"""Row and column of a well on its plate, counted from 0."""


@dataclass(slots=True)
class Well:
    """Sums over the planes of one well."""

    planes: int = 0
    """Planes with masks."""
    failed: int = 0
    """Planes and images that failed."""
    nuclei: int = 0
    """Nuclei found."""
    area: float = 0.0
    """Sum of the areas of nuclei, in pixels."""
    area_um2: float = 0.0
    """The same in um2, of planes of which the width of a pixel is known."""
    intensity: float = 0.0
    """Sum of the mean intensities of nuclei."""
    confidence: float = 0.0
    """Sum of the confidences of planes."""
    rated: int = 0
    """Planes that have a confidence."""

    def add(self, row: PlaneRow) -> None:
        """Adds a plane."""
        if not row.segmented:
            self.failed += row.status == PlaneStatus.FAILED
            return
        self.planes += 1
        self.nuclei += row.nuclei
        if row.nuclei:
            area = row.values["area_mean"] * row.nuclei
            self.area += area
            self.area_um2 += area * row.values.get("pixel_size", 0.0) ** 2
            self.intensity += row.values["intensity_mean"] * row.nuclei
        if "confidence" in row.values:
            self.confidence += row.values["confidence"]
            self.rated += 1

    def merge(self, other: Well) -> None:
        """Adds the sums of another."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, eq=False)
class Plate:
    """A plate and what was found on it."""

    name: str
    """Path of its group or folder, with how its files' names begin; of a plate that is all of IN, see `Plates`."""
    rows: tuple[str, ...]
    """Names of its rows."""
    columns: tuple[str, ...]
    """Names of its columns."""
    wells: dict[Place, Well]
    """What is known of wells, by row and column counted from 0."""

    def well_name(self, place: Place) -> str:
        """What to call a well: `A01`, or `row/column` where these are no letters and digits."""
        row, column = self.rows[place[0]], self.columns[place[1]]
        return f"{row}{int(column):02d}" if WELL_NAME.fullmatch(row + column) else f"{row}/{column}"

    @property
    def filled(self) -> int:
        """How many wells have results."""
        return sum(well.planes > 0 for well in self.wells.values())

    @property
    def total(self) -> Well:
        """The sums over all wells."""
        total = Well()
        for well in self.wells.values():
            total.merge(well)
        return total


@dataclass
class _Folder:
    """Images of a folder whose names may say wells."""

    images: int = 0
    named: int = 0
    plates: dict[str, dict[Place, Well]] = field(default_factory=dict)


class Plates:
    """The plates of a run, added up image by image; memory grows with the wells and folders.

    A plate that is all of IN has the name that its store gives it, or else that of IN, or where IN is not known that of
    OUT, both without `.zarr`. store: OUT. root: gives the path or URL of IN, None where it is not known. attributes:
    gives those of a group of the store; by default they are read there.
    """

    def __init__(
        self,
        store: Path,
        root: Callable[[], str | None] = lambda: None,
        attributes: Callable[[str], dict[str, Any]] | None = None,
    ) -> None:
        self._store, self._root = store, root
        self._attributes = attributes or (lambda group: read_attributes(store / group))
        self._metadata: dict[str, tuple[tuple[str, ...], tuple[str, ...]] | None] = {}
        self._stored: dict[str, dict[Place, Well]] = {}
        self._folders: dict[str, _Folder] = {}

    def add(self, row: PlaneRow) -> None:
        """Adds a plane, also one that failed."""
        place = self._place_in_store(row)
        if place is not None:
            plate, well = place
            self._stored.setdefault(plate, {}).setdefault(well, Well()).add(row)
            return
        plate, prefix, found = named_well(row.image)
        folder = self._folders.setdefault(plate, _Folder())
        folder.images += 1
        if found is None:
            return
        folder.named += 1
        if prefix not in folder.plates and len(folder.plates) >= MOST_PREFIXES:
            folder.plates = {"": _merged(folder.plates)}
        prefix = prefix if len(folder.plates) < MOST_PREFIXES and folder.plates.keys() != {""} else ""
        folder.plates.setdefault(prefix, {}).setdefault(found, Well()).add(row)

    def found(self) -> list[Plate]:
        """The plates, by name; no plane may be added any more."""
        return sorted(self._plates.values(), key=lambda plate: plate.name)

    def locate(self, row: PlaneRow) -> tuple[Plate, Place] | None:
        """The plate of a plane that was added, and its well; None for one that is on no plate."""
        place = self._place_in_store(row)
        if place is not None:
            return self._plates[None, place[0]], place[1]
        folder, prefix, well = named_well(row.image)
        plate = self._plates.get((folder, prefix)) or self._plates.get((folder, None))
        return None if plate is None or well is None else (plate, well)

    @cached_property
    def _plates(self) -> dict[tuple[str | None, str | None], Plate]:
        """The plates by None and the group in the store, or by folder and prefix; prefix None: all of the folder."""
        plates = dict[tuple[str | None, str | None], Plate]()
        for name, wells in self._stored.items():
            plates[None, name] = self._of_store(name, wells)
        for name, folder in self._folders.items():
            if folder.named < BELIEVED * folder.images:
                continue
            if len(folder.plates) > 1 and all(map(_is_plate, folder.plates.values())):
                short = Counter(prefix.rstrip(BETWEEN) for prefix in folder.plates)
                for prefix, wells in folder.plates.items():
                    called = prefix.rstrip(BETWEEN) if short[prefix.rstrip(BETWEEN)] == 1 else prefix
                    plates[name, prefix] = _of_names("/".join(filter(None, (name, called))) or self._whole, wells)
            elif _is_plate(wells := _merged(folder.plates)):
                prefix = next(iter(folder.plates)).rstrip(BETWEEN) if len(folder.plates) == 1 else ""
                plates[name, None] = _of_names("/".join(filter(None, (name, prefix))) or self._whole, wells)
        return plates

    @cached_property
    def _whole(self) -> str:
        """The name of a plate that is all of IN."""
        given = (self._root() or "").rstrip("/").rpartition("/")[2].removesuffix(".zarr").removesuffix(".ome")
        return given or path_beside(self._store, "").name

    def _place_in_store(self, row: PlaneRow) -> tuple[str, Place] | None:
        """The plate's group and the well of a plane whose image is a field of an OME-Zarr plate."""
        group = row.mask.removesuffix("/labels/nuclei") if row.mask else row.image
        parts = group.split("/")
        if len(parts) < 3:
            return None
        plate, row_name, column = "/".join(parts[:-3]), parts[-3], parts[-2]
        if plate not in self._metadata:
            self._metadata[plate] = _grid(self._attributes(plate))
        grid = self._metadata[plate]
        if grid is None or row_name not in grid[0] or column not in grid[1]:
            return None
        return plate, (grid[0].index(row_name), grid[1].index(column))

    def _of_store(self, name: str, wells: dict[Place, Well]) -> Plate:
        grid = self._metadata[name]
        assert grid is not None
        called = ome_of(self._attributes(name))["plate"].get("name") if not name else None
        return Plate(name or (called if isinstance(called, str) and called.strip() else self._whole), *grid, wells)


def named_well(key: str) -> tuple[str, str, Place | None]:
    """The folder that may be a plate, how names of its files begin, and the well, of an image's path.

    The well is None where neither the name nor the folder has one.
    """
    folder, _, name = key.rpartition("/")
    if match := NUMBERED.match(name):
        return folder, "", (int(match["r"]) - 1, int(match["c"]) - 1)
    stem = name.partition(".")[0]
    for pattern in LETTERED:
        if match := pattern.match(stem):
            return folder, match["prefix"], (row_number(match["row"]), int(match["c"]) - 1)
    above, _, last = folder.rpartition("/")
    if match := LETTERED[1].fullmatch(last):
        return above, match["prefix"], (row_number(match["row"]), int(match["c"]) - 1)
    return folder, "", None


def row_name(number: int) -> str:
    """The name of a row, counted from 0: A to Z, then AA to AF."""
    return chr(65 + number) if number < 26 else "A" + chr(65 + number - 26)


def row_number(name: str) -> int:
    """The reverse, counted from 0."""
    return ord(name) - 65 if len(name) == 1 else 26 + ord(name[1]) - 65


def _grid(attributes: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Names of the rows and columns of a plate; None for a group that is none."""
    plate = ome_of(attributes).get("plate")
    if not isinstance(plate, dict):
        return None
    rows, columns = (tuple(str(one["name"]) for one in plate.get(key) or ()) for key in ("rows", "columns"))
    return rows, columns


def _merged(plates: dict[str, dict[Place, Well]]) -> dict[Place, Well]:
    wells: dict[Place, Well] = {}
    for one in plates.values():
        for place, well in one.items():
            wells.setdefault(place, Well()).merge(well)
    return wells


def _is_plate(wells: Sequence[Place] | dict[Place, Well]) -> bool:
    rows, columns = {place[0] for place in wells}, {place[1] for place in wells}
    return len(rows) > 1 and len(columns) > 1 and max(rows) < FORMATS[-1][0] and max(columns) < FORMATS[-1][1]


def _of_names(name: str, wells: dict[Place, Well]) -> Plate:
    last_row, last_column = max(place[0] for place in wells), max(place[1] for place in wells)
    rows, columns = next(size for size in FORMATS if size[0] > last_row and size[1] > last_column)
    return Plate(name, tuple(map(row_name, range(rows))), tuple(str(n + 1) for n in range(columns)), wells)
