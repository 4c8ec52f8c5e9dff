"""Sizes of batches that were measured on this machine, kept for later runs: they change the speed and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nucseg_batch.files.atomic_write import write_whole
from nucseg_batch.machine.gpus import Grant, granted
from nucseg_batch.pipeline.channels import network_channel_count

if TYPE_CHECKING:
    from nucseg_batch.network.batching import BatchTrial
    from nucseg_batch.network.predictor import Predictor
    from nucseg_batch.pipeline.tasks import UnitTask
    from nucseg_batch.plan import Scales


def cache_folder() -> Path:
    """Where things are kept that only save time; raises RuntimeError where the user has no home."""
    place = os.environ.get("XDG_CACHE_HOME")
    return (Path(place) if place else Path.home() / ".cache") / "nucseg-batch"


def cache_file() -> Path:
    """Where sizes are kept."""
    return cache_folder() / "batches.json"


def remembered(predictor: Predictor) -> int | None:
    """Pixels in a batch that were best for this device, model and precision; None where nobody has measured."""
    found = _read().get(_key(predictor))
    return found if isinstance(found, int) and found > 0 else None


def remember(predictor: Predictor, pixels: int) -> None:
    """Keeps a size for later runs; where that is not possible, they go without."""
    with contextlib.suppress(OSError, RuntimeError):  # a home that cannot be written, or none
        path = cache_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({**_read(), _key(predictor): pixels}, indent=0, sort_keys=True))


def choose(predictor: Predictor) -> list[BatchTrial]:
    """Gives a predictor the batches that suit its device, and returns what was tried to find them.

    On a GPU it is measured, once; on a processor sizes hardly matter, and only `bench` measures them.
    """
    known = remembered(predictor)
    if known is not None:
        predictor.batch_pixels = known
        return []
    if predictor.device.startswith("cpu"):
        return []
    return measure(predictor)


def measure(predictor: Predictor) -> list[BatchTrial]:
    """Measures which batches are best, gives them to a predictor and keeps them."""
    from nucseg_batch.network.batching import grown

    pixels, tried = grown(predictor.speed)
    predictor.batch_pixels = pixels
    remember(predictor, pixels)
    return tried


def described(predictor: Predictor, tasks: Iterable[UnitTask], scales: Scales, channel: str) -> Iterator[str]:
    """Lines that say how many images of each shape go into a batch, and how much these are enlarged.

    channel: `settings.channel`.
    """
    label_arrays = {
        task.unit.label_array.name: task.unit.label_array for task in tasks if not task.unit.label_array.regional
    }
    for label_array in label_arrays.values():
        image = label_array.images[0]
        scale = scales.of(network_channel_count(image, channel))
        size = predictor.batch_size((image.height, image.width), scale)
        yield f"batches of {size} images of {image.height}x{image.width}, scale {scale:.3g}"


def _key(predictor: Predictor) -> str:
    machine, info = predictor.machine(), predictor.model.info
    network = f"{info.architecture} {info.task} {'-'.join(map(str, info.widths))}"
    grant = granted()  # what fits into all of a GPU may not fit into a part of it
    part = [f"{grant.limit // 2**20} MiB"] if isinstance(grant, Grant) else []
    return " | ".join([predictor.hardware(), machine["precision"], machine["backend"], network, *part])


def _read() -> dict[str, object]:
    try:
        content = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    return content if isinstance(content, dict) else {}
