"""Reports of small runs for tests, and what a page has in it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from doubles import Threshold
from numpy.typing import NDArray
from small_runs import SmallRun, picture, small_run

from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.report import report_text
from nucseg_batch.results.run import FinishedRun

EMPTY = {"meta", "img", "input", "br", "line", "rect", "path"}


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text; fails where elements do not close in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("meta", "img", "input", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [a for name, a in self.elements if name == tag and wanted.items() <= a.items()]


def report_of(store: Path, images: Path | None = None) -> str:
    """The report of a run as HTML."""
    with FinishedRun(store, images) as run:
        return report_text(run)


def noisy(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """A picture whose pixels differ, so that it does not count as saturated."""
    return pixels + np.random.default_rng(seed).integers(0, 60, pixels.shape, dtype=np.uint8)


def made_run(place: Path, monkeypatch: pytest.MonkeyPatch, images: dict[str, NDArray[np.generic]] | int) -> SmallRun:
    """A finished run over images by name, or over so many, of which each has one nucleus more than the one before."""
    run = small_run(place, monkeypatch)
    if isinstance(images, int):
        images = {f"i{number:02d}.tif": noisy(picture(number % 12), number) for number in range(images)}
    for name, pixels in images.items():
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        run.put(name, pixels)
    run.segment(Threshold(support=None))
    return run


def rewrite(table: Path, change: Callable[[int, dict[str, str]], None]) -> None:
    """Changes the rows of a table, each with its number."""
    with open(table, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    for number, row in enumerate(rows):
        change(number, row)
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def rows_of(store: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table of a run."""
    with open(RunLayout(store).tables[name], newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rate(store: Path) -> list[float]:
    """Gives every image with nuclei a confidence, and its nuclei the same; returns those of the rows of images.csv."""
    by_image: dict[str, float] = {}

    def of_image(number: int, row: dict[str, str]) -> None:
        by_image[row["image"]] = (number * 37 % 89 + 8) / 100
        row["confidence"] = f"{by_image[row['image']]}" if row["nuclei"] not in ("", "0") else ""

    rewrite(RunLayout(store).tables["images"], of_image)
    rewrite(RunLayout(store).tables["nuclei"], lambda _, row: row.update(confidence=f"{by_image[row['image']]}"))
    return [float(row["confidence"] or "nan") for row in rows_of(store, "images")]
