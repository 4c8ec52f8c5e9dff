"""A side-by-side with StarDist: its network alone, with its post-processing, and from TIFF files to TIFF files.

In an environment of StarDist's own:

    python3 -m venv peer && peer/bin/pip install stardist tensorflow tf_keras
    peer/bin/python tests/benchmarks/peer_stardist.py SOURCE --nucseg-python .venv/bin/python

Both programs get the same TIFF files, the grey 256x256 images (--side; 0: of any shape) of SOURCE repeated, and run in
turn. Ours is told the size of nuclei (--diameter), so that it rescales nothing, unless --default leaves that out.
StarDist is the configuration published as 2D_versatile_fluo (grid 2x2, 32 rays, U-Net of depth 3 with 32 filters,
float32, nms .3), driven as its examples do: imread, percentiles 1 and 99.8, predict_instances, save. Its times begin
with the network loaded and warm, as our stream's do; processor time of ours is that of the whole command. StarDist
measures no nuclei, ours does.

Without network access its published weights cannot be had. With random ones its forward pass costs the same, but its
detections mean nothing, and what they cost is not representative: shapes are then given a plausible radius, and the
threshold is lowered until about as many of them survive suppression in an image as ours finds nuclei there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import common
import inputs
import numpy as np
import tifffile

PUBLISHED = "2D_versatile_fluo"
CALIBRATION = 8
"""Images on which the threshold of a network with random weights is set."""
RADIUS = 10.0
"""Radius in pixels that shapes of a network with random weights are given."""
PER_CPU_SECOND = "Mpx per CPU second"
NMS_THRESH = 0.3
"""Of the published model."""
PACKAGES = ("stardist", "csbdeep", "tensorflow", "tensorflow-cpu", "keras", "tf_keras", "numpy", "numba", "tifffile")


def main() -> None:
    """Runs the benchmark, or with --child StarDist's part of one run."""
    parser = common.parser(__doc__ or "", repeat=2)
    parser.add_argument("--nucseg-python", type=Path, help="Python of the environment of nucseg-batch")
    parser.add_argument("--default", action="store_true", help="ours without options, as people type it")
    parser.add_argument("--nucseg-options", nargs=argparse.REMAINDER, default=[], help="all after it goes to `segment`")
    parser.add_argument("--images", type=int, default=200, help="from file to file by StarDist (200)")
    parser.add_argument("--nucseg-images", type=int, default=2000, help="from file to file by nucseg-batch (2000)")
    parser.add_argument("--side", type=int, default=256, help="of the images that are taken (256); 0: any")
    parser.add_argument("--forward-sides", type=int, nargs="+", default=[256, 1024], help="of images (256 1024)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="of StarDist's network (1 4 16)")
    parser.add_argument(
        "--forward-images", type=int, default=64, help="of 256x256 or as many pixels, a batch size (64)"
    )
    parser.add_argument(
        "--weights",
        choices=("published", "random"),
        default="published",
        help="published: random if they cannot be had",
    )
    parser.add_argument("--keras", choices=("2", "3"), default="3", help="2 needs tf_keras (3)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--nuclei", type=float, default=30.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(stardist_run(arguments)))
        return
    if arguments.nucseg_python is None:
        parser.error("--nucseg-python is missing")
    with common.scratch(arguments) as place:
        ours, theirs = timed(arguments, place)
    rows = table(ours, theirs)
    weights = theirs[0]["weights"]
    record = {"nucseg-batch": ours, "StarDist": theirs, "weights": weights, "packages": common.machine(PACKAGES)}
    common.tell(arguments, rows, record)
    print(f"StarDist with {weights} weights; versions: {record['packages']['versions']}")
    if weights == "random":
        print("StarDist's detections mean nothing then; only its forward pass is as in real use (see --help)")


def timed(arguments: argparse.Namespace, place: Path) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """Runs of both, in turn."""
    pictures = inputs.grey_pictures(arguments.source, arguments.side or None)
    few = inputs.write_images(pictures, place / "few", arguments.images, "tiff")
    many = inputs.write_images(pictures, place / "many", arguments.nucseg_images, "tiff")
    python = str(arguments.nucseg_python)
    sized = arguments.default or "--diameter" in arguments.nucseg_options
    size = [] if sized else ["--diameter", common.model_diameter(python=python)]
    options = [*size, *arguments.nucseg_options]
    environment = {"TF_USE_LEGACY_KERAS": "1"} if arguments.keras == "2" else {}
    names = ("forward_images", "weights")
    given = [word for name in names for word in (f"--{name.replace('_', '-')}", getattr(arguments, name))]
    lists = ["--forward-sides", *arguments.forward_sides, "--batches", *arguments.batches]
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, Any]] = []
    pixels = sum(pictures[i % len(pictures)].pixels.size for i in range(arguments.nucseg_images))
    for _ in range(arguments.repeat):
        ours.append(common.segment(many, place / "out.zarr", pixels, options, python))
        ours[-1][PER_CPU_SECOND] = pixels / ours[-1]["CPU seconds"] / 1e6
        common.remove_output(place / "out.zarr")
        print("nucseg-batch:", ours[-1], flush=True)
        nuclei = ours[-1]["nuclei"] / arguments.nucseg_images
        command = [sys.executable, __file__, few, "--child", place / "masks", "--nuclei", nuclei, *given, *lists]
        done = common.finished(command, environment)
        result: dict[str, Any] = json.loads(done.output.splitlines()[-1])
        theirs.append(result | {"CPU seconds": round(done.cpu_seconds, 1), "peak MB": round(done.peak_mb)})
        print("StarDist:", theirs[-1], flush=True)
    return ours, theirs


def table(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each figure, and how many times as fast our stream is."""
    stream, whole, processor = (
        statistics.median(run[name] for run in ours) for name in ("Mpx/s", "Mpx/s whole", PER_CPU_SECOND)
    )
    rows = [
        ("nucseg-batch, TIFF to masks and tables, stream", stream, None),
        ("the same, whole command", whole, processor),
    ]
    for name in theirs[0]["speeds"]:
        speed, of_cpu = (
            statistics.median(run["speeds"][name][what] for run in theirs) for what in ("Mpx/s", PER_CPU_SECOND)
        )
        rows.append((f"StarDist, {name}", speed, of_cpu))
    return [
        {
            "what": name,
            "Mpx/s": round(speed, 3),
            PER_CPU_SECOND: "" if of_cpu is None else round(of_cpu, 3),
            "ours is": f"{stream / speed:.1f}x" if speed else "-",
        }
        for name, speed, of_cpu in rows
    ]


def stardist_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """StarDist's part: Mpx/s of each of its stages, with the network loaded and warm."""
    from csbdeep.utils import normalize  # type: ignore[import-not-found]

    candidates: float | None = None
    began = time.perf_counter()
    model, weights = stardist_model(arguments)
    network = model.keras_model
    keras = type(network).__module__.split(".")[0]
    paths = sorted(arguments.source.glob("*.tif"))
    images = [normalize(tifffile.imread(path), 1, 99.8) for path in paths[: arguments.forward_images]]
    if weights == "random":
        candidates = set_threshold(model, images[:CALIBRATION], arguments.nuclei)
    model.predict_instances(images[0])
    ready = time.perf_counter() - began
    speeds = forward_speeds(network, arguments)
    pixels = sum(image.size for image in images)
    speeds["forward and candidates, image by image"] = rate(pixels, lambda: [model.predict_sparse(i) for i in images])
    found: list[int] = []
    speeds["forward, suppression and masks, image by image"] = rate(
        pixels, lambda: found.extend(model.predict_instances(image)[0].max() for image in images)
    )
    arguments.child.mkdir(exist_ok=True)
    pixels = sum(tifffile.imread(path).size for path in paths)
    speeds["TIFF to TIFF, image by image"] = rate(pixels, lambda: from_file_to_file(model, paths, arguments.child))
    return {
        "speeds": speeds,
        "weights": weights,
        "nuclei an image": round(float(np.mean(found)), 1),
        "candidates an image": candidates,
        "seconds to load": round(ready, 1),
        "keras": f"{keras} {sys.modules[keras].__version__}",
        "legacy keras": os.environ.get("TF_USE_LEGACY_KERAS") == "1",
        "config": {name: repr(value) for name, value in vars(model.config).items() if "train" not in name},
    }


def stardist_model(arguments: argparse.Namespace) -> tuple[Any, str]:
    """The published model, or one of its configuration with random weights."""
    from stardist.models import Config2D, StarDist2D  # type: ignore[import-not-found]

    if arguments.weights == "published":
        try:
            model = StarDist2D.from_pretrained(PUBLISHED)
            if model is not None:
                return model, "published"
        except Exception as error:  # a download fails in many ways
            print(f"the published weights cannot be had: {type(error).__name__}: {error}"[:300], file=sys.stderr)
    config = Config2D(axes="YXC", n_channel_in=1, grid=(2, 2), n_rays=32, unet_n_depth=3, unet_n_filter_base=32)
    model = StarDist2D(config, name=None, basedir=None)
    kernel, bias = model.keras_model.get_layer("dist").get_weights()
    model.keras_model.get_layer("dist").set_weights([kernel, bias + RADIUS])
    return model, "random"


def set_threshold(model: Any, images: Sequence[inputs.Pixels], nuclei: float) -> float:
    """Lowers the threshold until that many shapes survive in an image on average; returns how many were candidates."""
    probabilities = np.concatenate([model.predict(image)[0].ravel() for image in images])
    places, candidates, survivors = probabilities.size / len(images), nuclei, 0.0
    while survivors < nuclei and candidates < places / 4:
        candidates *= 1.5
        model.thresholds = {"prob": float(np.quantile(probabilities, 1 - candidates / places)), "nms": NMS_THRESH}
        survivors = float(np.mean([model.predict_instances(image)[0].max() for image in images]))
    return round(candidates, 1)


def forward_speeds(network: Any, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The network alone: image by image as StarDist calls it, and in batches, which it does not offer."""
    rng = np.random.default_rng(0)
    speeds = {}
    for side in arguments.forward_sides:
        count = max(1, arguments.forward_images * 256**2 // side**2)
        images = rng.random((count, side, side, 1), np.float32)
        for batch in (batch for batch in arguments.batches if batch <= count):
            network.predict(images[:batch], batch_size=batch, verbose=0)
            name = f"forward alone, {side}x{side}, " + (f"batches of {batch}" if batch > 1 else "image by image")
            whole = images[: count // batch * batch]
            speeds[name] = rate(whole.size, partial(in_batches, network, whole, batch))
    return speeds


def in_batches(network: Any, images: inputs.Pixels, batch: int) -> None:
    """A call of `predict` for each image, or one call for all batches."""
    if batch > 1:
        network.predict(images, batch_size=batch, verbose=0)
        return
    for image in images:
        network.predict(image[None], verbose=0)


def from_file_to_file(model: Any, paths: Sequence[Path], masks: Path) -> None:
    """What StarDist's example for many images does."""
    from csbdeep.io import save_tiff_imagej_compatible  # type: ignore[import-not-found]
    from csbdeep.utils import normalize

    for path in paths:
        labels, _ = model.predict_instances(normalize(tifffile.imread(path), 1, 99.8))
        save_tiff_imagej_compatible(masks / path.name, labels.astype(np.uint16), axes="YX")


def rate(pixels: int, work: Callable[[], Any]) -> dict[str, float]:
    """Speed of some work by the clock, and by the processor time of this process."""
    began, processor = time.perf_counter(), time.process_time()
    work()
    wall, processor = time.perf_counter() - began, time.process_time() - processor
    return {"Mpx/s": round(pixels / wall / 1e6, 4), PER_CPU_SECOND: round(pixels / processor / 1e6, 4)}


if __name__ == "__main__":
    main()
