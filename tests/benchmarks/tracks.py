"""How well and how fast nuclei are linked over time points, on simulated movies whose tracks are known.

    python tests/benchmarks/tracks.py [--frames N] [--nuclei N] [--seed N] [--json FILE]
    python tests/benchmarks/tracks.py --segment [--frames N] [--nuclei N] [--json FILE]

Nuclei are 12 to 16 pixels wide, move at random, touch and divide. With errors, a share of the labels is missing, as
many are cut in two, and as many merged with a neighbour if one is near, each in a single frame. Of each movie: speed in
pixels a frame along each axis, share of each error, measures of the Cell Tracking Challenge from py-ctcmetrics (DET,
TRA, LNK, and BC(1), the F1 of divisions that are found within a frame), TRA and BC(1) of the true tracks of the same
labels, which linking can reach at best, and seconds of linking on the processor. With --segment a movie is segmented by
the default model instead, from a TIFF to tables: seconds of segmenting and linking, of the clock and of the processor.
Importing laptrack is not in any of these seconds: it takes one or two, once in a run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import laptrack  # noqa: F401 - which takes a second or two
import numpy as np
import tifffile
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from movies import Movie, Tracks, measured, movie, track, true_tracks, with_errors, write_truth
from pictures import fluorescence
from small_runs import Notes

from nucseg_batch.executors import finishing, job, local, tracking
from nucseg_batch.settings import SegmentSettings

ASKED = ["Valid", "DET", "TRA", "LNK", "BC"]
MEASURES = ("Valid", "DET", "TRA", "LNK", "BC(1)")


def write_result(folder: Path, labels: NDArray[np.uint32], found: Tracks) -> None:
    """Writes labels with their tracks as the challenge has results."""
    folder.mkdir()
    spans, newest, lines = dict[int, list[int]](), found.parents.size - 1, list[list[int]]()
    for t, (frame, ids) in enumerate(zip(labels, found.ids, strict=True)):
        numbers = [0]
        for one in ids.tolist():
            line = spans.get(one)
            if line is None or line[2] < t - 1:
                parent = int(found.parents[one]) if line is None else line[0]
                newest += line is not None
                mother = spans[parent][0] if line is None and parent else parent
                line = spans[one] = [one if line is None else newest, t, t, mother]
                lines.append(line)
            line[2] = t
            numbers.append(line[0])
        tifffile.imwrite(folder / f"mask{t:03}.tif", np.array(numbers, np.uint16)[frame])
    (folder / "res_track.txt").write_text("".join(" ".join(map(str, line)) + "\n" for line in sorted(lines)))


def quality(frames: int, nuclei: int, seed: int) -> list[dict[str, Any]]:
    """A row for each kind of movie."""
    rows, side = list[dict[str, Any]](), int((nuclei * 1600) ** 0.5)
    for speed in (1.0, 2.0, 4.0):
        truth = movie(frames, (side, side + 9), nuclei, speed=speed, seed=seed + int(speed))
        for errors in (0, 0.01, 0.03):
            labels = with_errors(truth.labels(), errors, seed=seed)
            nuclei_of_frames = measured(labels)
            began = time.process_time()
            found = track(*nuclei_of_frames)
            seconds = time.process_time() - began
            own, best = (measures(truth, labels, one) for one in (found, true_tracks(truth, labels)))
            rows.append(
                {
                    "speed": speed,
                    "errors": errors,
                    "nuclei": int(sum(frame.max() for frame in labels)),
                    **own,
                    "TRA of truth": best["TRA"],
                    "BC(1) of truth": best.get("BC(1)"),
                    "linking s": seconds,
                }
            )
            print(
                "  ".join(f"{name} {'-' if value is None else f'{value:.4g}'}" for name, value in rows[-1].items()),
                flush=True,
            )
    return rows


def measures(truth: Movie, labels: NDArray[np.uint32], found: Tracks) -> dict[str, float]:
    """What py-ctcmetrics finds of tracks."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(None):
        folder = Path(name)
        from ctc_metrics.scripts.evaluate import evaluate_sequence

        write_truth(folder / "01_GT", truth)
        write_result(folder / "01_RES", labels, found)
        made = evaluate_sequence(str(folder / "01_RES"), str(folder / "01_GT"), metrics=ASKED, threads=1)
    return {one: float(made[one]) for one in MEASURES if made.get(one) is not None}


def segment(frames: int, nuclei: int) -> list[dict[str, Any]]:
    """A row of a movie that the default model segments."""
    side = int((nuclei * 1600) ** 0.5)
    truth = movie(frames, (side, side + 9), nuclei, speed=2.0, seed=1)
    image = np.stack([fluorescence(plane, seed=t) for t, plane in enumerate(truth.tracks)])
    link, spent = tracking.link_movie_groups, list[tuple[float, float]]()

    def timed(*arguments: Any, **options: Any) -> None:
        began = time.perf_counter(), time.process_time()
        link(*arguments, **options)
        spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))

    finishing.link_movie_groups = timed  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        tifffile.imwrite(folder / "in" / "a.tif", image, imagej=True, metadata={"axes": "TYX"})
        settings = SegmentSettings(link="t", diameter=14.0)
        prepared = job.prepare(folder / "in", folder / "out.zarr", None, settings, Notes())
        began = time.process_time()
        summary = local.run(prepared, Notes())
        processor = time.process_time() - began
    row = {
        "Mpx": image.size / 1e6,
        "nuclei": summary.outcome.nuclei,
        "segmenting s": summary.stream_seconds,
        "linking s": spent[0][0],
        "linking / segmenting": spent[0][0] / summary.stream_seconds,
        "linking, processor s": spent[0][1],
        "all else, processor s": processor - spent[0][1],
        "processor, linking / all else": spent[0][1] / (processor - spent[0][1]),
    }
    print("  ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    return [row]


def main() -> None:
    """Prints the rows, and writes them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segment", action="store_true", help="segment a movie with the default model")
    parser.add_argument("--frames", type=int, default=100, help="frames of a movie")
    parser.add_argument("--nuclei", type=int, default=60, help="nuclei in the first frame")
    parser.add_argument("--seed", type=int, default=30, help="of movies and errors")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    options = parser.parse_args()
    rows = (
        segment(options.frames, options.nuclei)
        if options.segment
        else quality(options.frames, options.nuclei, options.seed)
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
