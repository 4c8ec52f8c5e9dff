"""The report of a run: one HTML file for people who look at pictures and numbers, and not into zarr.

`run_statistics` reads the tables once and counts; `gallery_selection` reads images.csv again, knowing by then what is
usual, and selects what is named and shown; `pictures` draws that. `page` fills it into `templates`. Memory does not
depend on the number of images or nuclei. The same run gives the same bytes: no clock is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nucseg_batch.files.atomic_write import write_whole
from nucseg_batch.files.run.timings import read_timings
from nucseg_batch.results.report.advice import notes
from nucseg_batch.results.report.charts import distributions
from nucseg_batch.results.report.failure_reasons import failures
from nucseg_batch.results.report.gallery import draw_all, grouped, unread
from nucseg_batch.results.report.gallery_selection import choose
from nucseg_batch.results.report.heatmap import colour, columns_of_wells, heatmaps
from nucseg_batch.results.report.outliers import KINDS
from nucseg_batch.results.report.page import page
from nucseg_batch.results.report.run_statistics import UNSURE, read_statistics
from nucseg_batch.results.report.settings_text import assumed_in_words, made_with, origin, settings_in_words
from nucseg_batch.results.report.tracks import tracks_section
from nucseg_batch.results.report.volumes import volumes_section
from nucseg_batch.results.run import FinishedRun

__all__ = ["Told", "report_text", "write_report"]

Told = Callable[[str, int, int], None]
"""Told what is done, how many steps of it and of how many."""


def write_report(
    run: FinishedRun,
    to: Path,
    told: Told = lambda what, done, total: None,
    *,
    well_columns: Sequence[str] = (),
) -> None:
    """Writes the report of a run; the file appears whole or not at all."""
    write_whole(to, report_text(run, told, well_columns=well_columns).encode("utf-8"))


def report_text(
    run: FinishedRun, told: Told = lambda what, done, total: None, *, well_columns: Sequence[str] = ()
) -> str:
    """The report as HTML.

    well_columns: columns of wells.csv that get heat maps, too.
    """
    chosen = columns_of_wells(run, well_columns)
    survey = read_statistics(run, lambda done, total: told("planes counted", done, total))
    choice = choose(run, survey, lambda done, total: told("planes judged", done, total))
    pictures = draw_all(run, choice.groups, survey.planes, lambda done, total: told("pictures", done, total))
    made, plates, gone = made_with(run), survey.plates.found(), unread(pictures)
    assumed = assumed_in_words(made)
    return page(
        name=run.store.name,
        made_by=made.get("version"),
        survey=survey,
        joined=made.get("output", {}).get("volumes"),
        volumes=volumes_section(run),
        tracks=tracks_section(run),
        notes=notes(survey, choice, gone, len(pictures), assumed),
        failures=failures(run.tables["failures"]),
        failures_csv=run.tables["failures"].name,
        groups=grouped(choice.groups, pictures),
        bright=sorted({one.bright for some in pictures.values() for one in some if one.pixels is not None}),
        unread=gone,
        unsure=UNSURE,
        plates=plates,
        heatmaps=heatmaps(plates, survey, chosen),
        colour=colour,
        distributions=distributions(survey),
        kinds=KINDS,
        outliers=choice.outliers,
        shown=pictures.keys(),
        origin=origin(run, made),
        assumed=assumed,
        settings=settings_in_words(made),
        times=read_timings(run.store),
    )
