"""Masks as COCO: one JSON for the run, with each nucleus as compressed runs, as pycocotools reads them.

It is written from front to back: the images from images.csv, then their annotations. So it may have any length; but
pycocotools and most that read COCO hold it whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from nucseg_batch.arrays.rle import MOST_PIXELS, encode
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.files.names import printable
from nucseg_batch.results.export.planes import LabelledPlane, MaskBlocks
from nucseg_batch.results.export.task import RunExport
from nucseg_batch.results.tables import PlaneRow

CATEGORY = {"id": 1, "name": "nucleus", "supercategory": "cell"}
"""The one category."""


def write_coco(whole: RunExport) -> list[str]:
    """Writes `coco.json`; planes of more pixels than pycocotools counts are left out."""
    refused = [
        f"{row.name} has more pixels than pycocotools counts (2^32); export it as tiff or geojson."
        for row in whole.run.planes(whole.pattern)
        if row.segmented and not _fits(row)
    ]
    with whole_file(whole.folder / "coco.json") as file:
        info = {"description": "nuclei found by nucseg-batch", **whole.about}
        file.write(f'{{"info":{json.dumps(info)},\n"licenses":[],\n"categories":[{json.dumps(CATEGORY)}],\n'.encode())
        images = (_image(number, row) for number, row in enumerate(_rows(whole), start=1))
        _list(file, "images", images)
        file.write(b",\n")
        _list(file, "annotations", _annotations(whole))
        file.write(b"}\n")
    return refused


def _fits(row: PlaneRow) -> bool:
    return row.shape[0] * row.shape[1] < MOST_PIXELS


def _rows(whole: RunExport) -> Iterator[PlaneRow]:
    return (row for row in whole.run.planes(whole.pattern) if row.segmented and _fits(row))


def _image(number: int, row: PlaneRow) -> str:
    height, width = row.shape
    image: dict[str, Any] = {"id": number, "file_name": printable(row.image), "height": height, "width": width}
    image |= {axis: place for axis, place in (("t", row.t), ("z", row.z)) if place is not None}
    return json.dumps(image)


def _annotations(whole: RunExport) -> Iterator[str]:
    number, blocks = 0, MaskBlocks(whole.run)
    for image, (row, nuclei) in enumerate(whole.run.with_nuclei(_rows(whole)), start=1):
        plane = LabelledPlane(blocks, row, nuclei)
        height, width = row.shape
        box = np.stack([nuclei[f"bbox-{side}"] for side in range(4)], axis=1).astype(np.int64)
        boxes = np.stack([box[:, 1], box[:, 0], box[:, 3] - box[:, 1], box[:, 2] - box[:, 0]], axis=1).tolist()
        areas = nuclei["area"].astype(np.int64).tolist()
        labels = nuclei.labels.tolist()
        for window in plane.windows():
            runs = encode(window.mask, (height, width), window.top, window.left)
            plane.check(window, runs)
            for place in window.places.tolist():
                number += 1
                counts = json.dumps(runs[labels[place]])
                yield (
                    f'{{"id":{number},"image_id":{image},"category_id":1,"iscrowd":0,"area":{areas[place]},'
                    f'"bbox":{boxes[place]},"label":{labels[place]},'
                    f'"segmentation":{{"size":[{height},{width}],"counts":{counts}}}}}'
                )
        whole.progress(image, whole.planes)


def _list(file: IO[bytes], name: str, items: Iterator[str]) -> None:
    file.write(f'"{name}":['.encode())
    for number, item in enumerate(items):
        file.write((",\n" if number else "\n").encode() + item.encode())
    file.write(b"\n]")
