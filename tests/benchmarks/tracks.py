"""How well nuclei are linked over time points, on simulated movies whose tracks are known.

    python tests/benchmarks/tracks.py [--frames N] [--nuclei N] [--json FILE]

Nuclei are 12 to 16 pixels wide, move at random, touch and divide. With errors, a share of the labels is missing, and as
many are merged with a neighbour if one is near, each in a single frame. Of each movie: speed in pixels a frame along
each axis, share of each error, measures of the Cell Tracking Challenge from py-ctcmetrics (DET, TRA, LNK,
and BC(1), the F1 of divisions that are found within a frame), and seconds of linking.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from ctc_metrics.scripts.evaluate import evaluate_sequence
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from movies import movie, tracked, with_errors, write_truth

ASKED = ["Valid", "DET", "TRA", "LNK", "BC"]
MEASURES = ("Valid", "DET", "TRA", "LNK", "BC(1)")


def write_result(folder: Path, labels: NDArray[np.uint32]) -> float:
    """Links labels and writes them as the challenge has results; returns the seconds of linking."""
    began = time.perf_counter()
    found = tracked(labels)
    seconds = time.perf_counter() - began
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
    return seconds


def main() -> None:
    """Prints the rows, and writes them where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100, help="frames of a movie")
    parser.add_argument("--nuclei", type=int, default=60, help="nuclei in the first frame")
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    options = parser.parse_args()
    rows = list[dict[str, Any]]()
    side = int((options.nuclei * 1600) ** 0.5)
    for speed in (1.0, 2.0, 4.0):
        for errors in (0, 0.01, 0.03):
            truth = movie(options.frames, (side, side + 9), options.nuclei, speed=speed, seed=int(speed))
            labels = with_errors(truth.labels(), errors)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_truth(folder / "01_GT", truth)
                seconds = write_result(folder / "01_RES", labels)
                measures = evaluate_sequence(str(folder / "01_RES"), str(folder / "01_GT"), metrics=ASKED, threads=1)
            rows.append(
                {
                    "speed": speed,
                    "errors": errors,
                    "nuclei": int(sum(frame.max() for frame in labels)),
                    **{one: float(measures[one]) for one in MEASURES if measures.get(one) is not None},
                    "linking s": seconds,
                }
            )
            print("\n", "  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
