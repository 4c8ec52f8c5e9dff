"""One pass over the tables: how many there are of everything, and how values are distributed over the whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.plan import PlaneStatus
from nucseg_batch.results.plates import Plates
from nucseg_batch.results.report.distribution import Distribution
from nucseg_batch.results.report.dna_content import aligned
from nucseg_batch.results.report.ranking import Finding, Ranking
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.tables import PlaneNuclei, PlaneRow

PLANE_VALUES = ("nuclei", "area_fraction", "confidence", "sharpness", "saturated_fraction", "intensity_mean")
"""Columns of images.csv of which the distribution is wanted, where the table has them."""
NUCLEI_VALUES = ("area", "area_um2", "intensity_mean", "confidence")
"""Columns of nuclei.csv likewise."""
UNSURE = 0.6
"""A nucleus of less confidence is doubtful: about half of these are right (docs/confidence.md)."""
BORDER_SHARE, BORDER_NUCLEI = 0.5, 5
"""A plane with at least so many nuclei, of which at least this share is cut, is worth a look."""
COPIED = 2**24
"""Bytes that are read at once where lines are counted."""

Progress = Callable[[int, int], None]
"""Told how many steps of all are done."""


@dataclass(frozen=True)
class RunStatistics:
    """What the tables say of the whole run."""

    images: int
    """Images with a mask, or several."""
    planes: int
    """Planes with a mask."""
    failed: int
    """Planes and images without one, because they failed."""
    missing: int
    """Planes that were not done yet."""
    nuclei: int
    """Nuclei in all masks."""
    cut: int
    """Nuclei that touch the border of their image."""
    unsure: int
    """Nuclei of less confidence than UNSURE."""
    measured: int
    """Planes of which the width of a pixel is known."""
    stacks: bool
    """Whether any image has several planes."""
    pixels: int
    """Pixels of all planes with a mask."""
    of_planes: Mapping[str, Distribution]
    """Of values of planes by name: PLANE_VALUES, and `size`, the median area in the unit of sizes."""
    of_nuclei: Mapping[str, Distribution]
    """Of values of nuclei by name: NUCLEI_VALUES, and `dna_content`, the summed intensity above background of nuclei
    that are not cut, also `aligned_dna_content`, see `dna_content.aligned`."""
    border: Ranking
    """Planes many of whose nuclei are cut."""
    plates: Plates
    """The plates that the images are on; empty where they are on none."""

    @property
    def micrometres(self) -> bool:
        """Whether sizes are in micrometres: where the width of a pixel is known for all planes."""
        return self.planes > 0 and self.measured == self.planes

    @property
    def unit(self) -> str:
        """The unit of areas."""
        return "µm²" if self.micrometres else "pixels"

    @property
    def per(self) -> str:
        """What is counted: planes where images have several."""
        return "plane" if self.stacks else "image"


def size_of(row: PlaneRow, micrometres: bool) -> float:
    """The median area of a plane's nuclei, in um2 or pixels; NaN without any."""
    area = row.values.get("area_median", float("nan"))
    return area * row.values["pixel_size"] ** 2 if micrometres else area


def touching(row: PlaneRow, nuclei: PlaneNuclei) -> NDArray[np.bool_]:
    """Which nuclei of a plane are cut by its border, (n,)."""
    if not len(nuclei):
        return np.zeros(0, np.bool_)
    height, width = row.shape
    top, left, bottom, right = (nuclei[f"bbox-{number}"] for number in range(4))
    return (top <= 0) | (left <= 0) | (bottom >= height) | (right >= width)


def count_rows(run: FinishedRun) -> int:
    """Rows of images.csv, or some more where names have line ends in them."""
    with open(run.tables["images"], "rb") as file:
        return max(sum(piece.count(b"\n") for piece in iter(lambda: file.read(COPIED), b"")) - 1, 0)


def read_statistics(run: FinishedRun, progress: Progress = lambda done, total: None) -> RunStatistics:
    """Reads images.csv and nuclei.csv once; memory does not grow with them."""
    total, tally = count_rows(run), _Tally(run)
    for number, (row, nuclei) in enumerate(run.with_nuclei_in_pieces(run.planes())):
        tally.add(number, row, nuclei)
        if number % 1000 == 0:
            progress(number, total)
    return tally.result()


class _Tally:
    """The sums while they are made."""

    def __init__(self, run: FinishedRun) -> None:
        self._columns = [name for name in NUCLEI_VALUES if name in run.nuclei_columns]
        self._of_planes = {name: Distribution() for name in (*PLANE_VALUES, "size", "size_um2")}
        self._of_nuclei = {name: Distribution() for name in (*self._columns, "dna_content", "aligned_dna_content")}
        self._counts = dict.fromkeys((*PlaneStatus, "images", "nuclei", "cut", "unsure", "pixels"), 0)
        self._measured = 0
        self._stacks = False
        self._image: str | None = None
        self._border = Ranking()
        self._plates = Plates(run.store, run.root)

    def add(self, number: int, row: PlaneRow, nuclei: Iterable[PlaneNuclei]) -> None:
        """Counts a plane."""
        counts = self._counts
        counts[row.status] += 1
        self._stacks |= row.t is not None or row.z is not None
        self._plates.add(row)
        if not row.segmented:
            return
        counts["images"] += row.image != self._image
        self._image = row.image
        counts["nuclei"] += row.nuclei
        height, width = row.shape
        counts["pixels"] += height * width
        self._measured += "pixel_size" in row.values
        for name in PLANE_VALUES:
            if name in row.values:
                self._of_planes[name].add(row.values[name])
        if row.nuclei:
            self._of_planes["size"].add(size_of(row, False))
            if "pixel_size" in row.values:
                self._of_planes["size_um2"].add(size_of(row, True))
            self._add_nuclei(number, row, nuclei)

    def _add_nuclei(self, number: int, row: PlaneRow, nuclei: Iterable[PlaneNuclei]) -> None:
        cut = 0
        for piece in nuclei:
            values = {name: piece[name] for name in self._columns}
            for name, some in values.items():
                self._of_nuclei[name].add(some)
            if "confidence" in values:
                self._counts["unsure"] += int((values["confidence"] < UNSURE).sum())
            at_border = touching(row, piece)
            cut += int(at_border.sum())
            if "intensity_background" in row.values and {"area", "intensity_mean"} <= values.keys():
                above = values["intensity_mean"] - row.values["intensity_background"]
                contents = (values["area"] * above)[~at_border]
                self._of_nuclei["dna_content"].add(contents)
                self._of_nuclei["aligned_dna_content"].add(aligned(contents))
        self._counts["cut"] += cut
        share = cut / row.nuclei
        if row.nuclei >= BORDER_NUCLEI and share >= BORDER_SHARE:
            self._border.add(Finding(number, row, share, f"{cut} of {row.nuclei} nuclei"))

    def result(self) -> RunStatistics:
        """All of it."""
        counts = self._counts
        micrometres = self._measured == counts[PlaneStatus.OK] > 0
        of_planes = {name: values for name, values in self._of_planes.items() if values.count}
        in_micrometres = of_planes.pop("size_um2", None)
        if micrometres and in_micrometres is not None:
            of_planes["size"] = in_micrometres
        return RunStatistics(
            images=counts["images"],
            planes=counts[PlaneStatus.OK],
            failed=counts[PlaneStatus.FAILED],
            missing=counts[PlaneStatus.MISSING],
            nuclei=counts["nuclei"],
            cut=counts["cut"],
            unsure=counts["unsure"],
            measured=self._measured,
            stacks=self._stacks,
            pixels=counts["pixels"],
            of_planes=of_planes,
            of_nuclei={name: values for name, values in self._of_nuclei.items() if values.count},
            border=self._border,
            plates=self._plates,
        )


def ok_planes(run: FinishedRun) -> Iterator[tuple[int, PlaneRow]]:
    """The planes with masks, each with its number among all rows."""
    return ((number, row) for number, row in enumerate(run.planes()) if row.segmented)
