"""How much the simpler range of intensities in `rdf.yaml` changes scores: a table over annotated images.

    python tests/benchmarks/exported_range.py MODEL.onnx DATA... [--model MODEL.keras] [--split val]

Each annotated image of a split goes through an exported network at its annotated width of nuclei, once with the range
of intensities of the model, and once with percentiles 1 and 99.8. The table has the mean over images of AP@.50 and
AP .50:.95 of each kind of image. Needs onnxruntime.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import defaultdict
from pathlib import Path

import onnxruntime

from nucseg_batch.arrays.metrics import Match, match, mean_average_precision, score
from nucseg_batch.arrays.prepared import prepared
from nucseg_batch.executors.existing import default_model
from nucseg_batch.files.annotations import find_all_pairs
from nucseg_batch.model_record import read_record
from nucseg_batch.training.data import read_all


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, default=default_model())
    parser.add_argument("--split", default="val")
    arguments = parser.parse_args()
    record = read_record(arguments.model)
    records = {"range of the model": record, "percentiles": dataclasses.replace(record, intensities="percentiles")}
    session = onnxruntime.InferenceSession(str(arguments.onnx), providers=["CPUExecutionProvider"])
    matches: dict[tuple[str, str], list[list[Match]]] = defaultdict(list)
    pairs = [pair for pair in find_all_pairs(arguments.data).pairs if pair.split == arguments.split]
    for sample in read_all(pairs, print):
        for name, one in records.items():
            shown = prepared(sample.pixels, one, one.diameter / sample.diameter)
            (output,) = session.run(["nuclei"], {"image": shown.pixels})
            matches[sample.modality, name].append(match(sample.scored(shown.labels(output)), sample.truth))
    for (modality, name), found in matches.items():
        scores = score(found)
        print(
            f"{modality:<14} {len(found):>4} images  {name:<20} AP@.50 {scores[0].ap_image_mean:.3f}  "
            f"AP .50:.95 {mean_average_precision(scores):.3f}"
        )


if __name__ == "__main__":
    main()
