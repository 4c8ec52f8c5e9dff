"""The report of a run: one HTML file for people who look at pictures and numbers, and not into zarr.

`run_statistics` reads the tables once and counts; `gallery_selection` reads images.csv again, knowing by then what is
usual, and selects what is named and shown; `pictures` draws that. `sections` makes markup of it, and `page` one file.
Memory does not depend on the number of images or nuclei. The same run gives the same bytes: no clock is read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nucseg_batch.files.atomic_write import write_whole
from nucseg_batch.files.names import printable
from nucseg_batch.files.run.timings import read_timings
from nucseg_batch.results.report import sections
from nucseg_batch.results.report.advice import notes
from nucseg_batch.results.report.failure_reasons import failures
from nucseg_batch.results.report.gallery import draw_all, gallery, unread
from nucseg_batch.results.report.gallery_selection import choose
from nucseg_batch.results.report.page import Section, page
from nucseg_batch.results.report.run_statistics import read_statistics
from nucseg_batch.results.report.settings_text import assumed_in_words, made_with, origin, settings_in_words
from nucseg_batch.results.run import FinishedRun

__all__ = ["Told", "report_path", "report_text", "write_report"]

Told = Callable[[str, int, int], None]
"""Told what is done, how many steps of it and of how many."""


def write_report(run: FinishedRun, to: Path, told: Told = lambda what, done, total: None) -> None:
    """Writes the report of a run; the file appears whole or not at all."""
    write_whole(to, report_text(run, told).encode("utf-8"))


def report_text(run: FinishedRun, told: Told = lambda what, done, total: None) -> str:
    """The report as HTML."""
    found = read_statistics(run, lambda done, total: told("planes counted", done, total))
    choice = choose(run, found, lambda done, total: told("planes judged", done, total))
    pictures = draw_all(run, choice.groups, found.planes, lambda done, total: told("pictures", done, total))
    times, made = read_timings(run.store), made_with(run)
    plates = found.plates.found()
    assumed = assumed_in_words(made)
    said = notes(found, choice, unread(pictures), len(pictures), assumed)
    parts = [Section("look", "What to look at first", sections.look_at(said))]
    reasons = failures(run.tables["failures"])
    if reasons:
        content = sections.failures(reasons, run.tables["failures"].name)
        parts.append(Section("failures", "Images that failed", content))
    parts.append(
        Section("gallery", "Pictures", gallery(choice.groups, pictures, rated="confidence" in found.of_nuclei))
    )
    if plates:
        title = "Plate" if len(plates) == 1 else f"{len(plates)} plates"
        parts.append(Section("plates", title, sections.plates(plates, found)))
    parts += [
        Section("distributions", "Distributions", sections.distributions(found)),
        Section("outliers", "Outliers", sections.outliers(found, choice, pictures.keys())),
        Section(
            "how", "How it was made", sections.settings_section(settings_in_words(made), origin(run, made), assumed)
        ),
    ]
    if times is not None:
        parts.append(Section("times", "Times", sections.stages(times)))
    name = printable(run.store.name)
    return page(f"Nuclei of {name}", sections.header(name, found, times, str(made.get("version", ""))), parts)
