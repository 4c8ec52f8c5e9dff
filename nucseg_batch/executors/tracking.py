"""Links the nuclei of movies over time points when their units are done: which movies are left, and doing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nucseg_batch.arrays.tracks import check_tracker
from nucseg_batch.executors.job import Job
from nucseg_batch.executors.progress import ProgressCounter
from nucseg_batch.files.masks.store import MaskWriter
from nucseg_batch.files.run.track_records import TrackRecords
from nucseg_batch.files.run.track_table import TrackTable, write_tracks
from nucseg_batch.pipeline.tracks import link_movies
from nucseg_batch.plan import MovieGroup, movie_groups


def _groups(job: Job) -> Iterator[MovieGroup]:
    """All movies of a run that links nuclei over time points."""
    return movie_groups(job.plan) if job.begun.settings.link == "t" else iter(())


def movies_to_link(job: Job) -> list[MovieGroup]:
    """Movies whose units are all done, and whose nuclei are not linked, or were linked of other masks than these."""
    records, found = TrackRecords(job.journal), []
    for group in _groups(job):
        source, linked = records.source_state(group), records.record(group)
        if source is not None and (linked is None or linked.source != source):
            found.append(group)
    return found


def link_movie_groups(job: Job, groups: Iterable[MovieGroup], progress: ProgressCounter) -> None:
    """Links the nuclei of movies whose units are all done; UsageError where the library for it is not installed."""
    writer, table = MaskWriter(job.store), TrackTable(job.table)
    for group in groups:
        check_tracker()
        image, more = group.image(group.places[0]), len(group.places) - 1
        others = f" and {more} more" if more else ""
        progress.tell(f"{image.key}{others}: linking nuclei over {group.frames} time points")
        link_movies(group, journal=job.journal, writer=writer, table=table)


def write_track_table(job: Job) -> int | None:
    """Writes the table of tracks, and returns how many it has; None in a run without, which has no such table."""
    if job.begun.settings.link != "t":
        return None
    return write_tracks(job.store, _groups(job), TrackRecords(job.journal))


def track_count(job: Job) -> int | None:
    """Tracks of all movies that are linked; None in a run without."""
    if job.begun.settings.link != "t":
        return None
    records = map(TrackRecords(job.journal).record, _groups(job))
    return sum(sum(linked.tracks) for linked in records if linked is not None)


def tracker_versions(job: Job) -> dict[str, str]:
    """The version of laptrack that linked the movies of a run, by its name; several with commas, empty without any."""
    records = map(TrackRecords(job.journal).record, _groups(job))
    versions = sorted({linked.laptrack for linked in records if linked is not None and linked.laptrack})
    return {"laptrack": ", ".join(versions)} if versions else {}
