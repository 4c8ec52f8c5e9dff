"""What `confidence` is worth: how well it tells right from wrong, where the truth is known.

    python tests/benchmarks/confidence.py OUT.zarr TRUTH [--json FILE]

OUT.zarr is a finished run, TRUTH label images of the same names. Of images: Spearman's rank correlation of `confidence`
with the AP at an IoU of .50, and how many of the worst tenth are among the least confident tenth and fifth. Of nuclei:
which share is right, with an IoU above .50 with an annotated one, by confidence, and the area under the ROC curve.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from nucseg_batch.api.evaluate import evaluate
from nucseg_batch.files.annotations import find_label_images, stem
from nucseg_batch.results.run import FinishedRun

STEPS = (0.0, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Limits of the classes of confidence."""


def of_images(store: Path, truth: Path) -> dict[str, Any]:
    """How the confidence of images goes with their AP; images without nuclei have none and are left out."""
    with FinishedRun(store) as run:
        confidence = {stem(row.image): row.values.get("confidence") for row in run.planes()}
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for row in evaluate(store, truth).rows():
        known = confidence.get(row["image"])
        if known is not None:
            for group in {"all", row["group"]} - {""}:
                groups.setdefault(group, []).append((known, row["ap_50"], row["mean_ap"]))
    return {name: _correlation(np.array(values)) for name, values in sorted(groups.items())}


def _correlation(values: np.ndarray) -> dict[str, Any]:
    known, ap_50, mean_ap = values.T
    tenth = max(1, round(len(known) / 10))
    worst, doubted = np.argsort(ap_50, kind="stable")[:tenth], np.argsort(known, kind="stable")
    return {
        "images": len(known),
        "rank correlation with AP@.5": round(float(spearmanr(known, ap_50)[0]), 3),
        "with mean AP": round(float(spearmanr(known, mean_ap)[0]), 3),
        "worst tenth": tenth,
        "of these among the least confident tenth": len({*worst} & {*doubted[:tenth]}),
        "among the least confident fifth": len({*worst} & {*doubted[: 2 * tenth]}),
    }


def of_nuclei(store: Path, truth: Path) -> dict[str, Any]:
    """How the confidence of nuclei goes with being right."""
    labels = {image.name: image for image in find_label_images(truth, "TRUTH").images}
    known, right = [np.zeros(0)], [np.zeros(0, bool)]
    with FinishedRun(store) as run:
        for row, nuclei in run.with_nuclei(row for row in run.planes() if row.nuclei):
            annotated = labels[stem(row.image)].read().labels.astype(np.int64)
            mask = run.mask(row).astype(np.int64)
            shared = np.zeros((mask.max() + 1, annotated.max() + 1))
            np.add.at(shared, (mask.ravel(), annotated.ravel()), 1)
            iou = shared / (shared.sum(1)[:, None] + shared.sum(0)[None] - shared)
            known.append(nuclei["confidence"])
            right.append(iou[1:, 1:].max(1, initial=0) > 0.5)
    return _table(np.concatenate(known), np.concatenate(right))


def _table(known: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    ranks, good, bad = rankdata(known), int(right.sum()), int((~right).sum())
    area = (ranks[right].sum() - good * (good + 1) / 2) / max(good * bad, 1)
    classes = {}
    for low, high in itertools.pairwise(STEPS):
        inside = (known >= low) & (known < high if high < 1 else known <= 1)
        share = round(float(right[inside].mean()), 3) if inside.any() else None
        classes[f"{low:g} to {high:g}"] = {"nuclei": int(inside.sum()), "right": share}
    return {"nuclei": len(known), "right": round(float(right.mean()), 3), "ROC area": round(area, 3), "by": classes}


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    record = {
        "images": of_images(arguments.store, arguments.truth),
        "nuclei": of_nuclei(arguments.store, arguments.truth),
    }
    print(json.dumps(record, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
