"""Lazy arrays: images of a collection as dask arrays, and labels of an array of any size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from nucseg_batch.api.segment import PathLike, settings_of
from nucseg_batch.errors import ImageError, UsageError, check
from nucseg_batch.executors import array_tasks as tasks
from nucseg_batch.executors.existing import default_model
from nucseg_batch.executors.kept_models import find_model
from nucseg_batch.files.array_source import ArraySource, array_axes, array_header
from nucseg_batch.files.atomic_write import file_sha256
from nucseg_batch.files.find.channel_files import with_channels
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.find.header_scan import none_usable, scan_headers
from nucseg_batch.files.find.select import image_info, nuclei_channel
from nucseg_batch.files.image_array import ImageArray
from nucseg_batch.plan import Failure, ImageInfo, LabelArray, LargePlane, Unit
from nucseg_batch.settings import SegmentSettings

if TYPE_CHECKING:
    from nucseg_batch.files.find.header_scan import ScannedImage

READ_OPTIONS = ("channel", "axes", "max_pixels", "region")
"""Options of `open_images`, as `nucseg_batch.SegmentSettings` defines them."""
ARRAY_OPTIONS = (
    *("channel", "diameter", "threshold", "min_area", "augment", "pixel_size", "region", "skip_empty"),
    *("device", "precision", "batch_size", "memory"),
)
"""Options of `segment_array`, likewise."""
ONE_CHANNEL = "Leave channel out; if one of its axes is channels, give axes with c for it."
"""What to do where a channel is asked for of an array that has only one."""


class Images(Mapping[str, da.Array]):
    """The images of a collection by name, as lazy dask arrays: `open_images("in/")["plate1/A01.tif"]`.

    Each has the axes (t, c, z, y, x) and the dtype of the image; bool comes as uint8 of 0 and 255, floats as float32.
    The three samples of a colour lie along c. Blocks are whole planes, or the regions in which `segment` reads large
    ones, with all channels.
    """

    def __init__(self, arrays: Mapping[str, ImageArray], failures: tuple[Failure, ...]) -> None:
        self._arrays = arrays
        self.failures = failures
        """Images that cannot be opened, and why."""

    def __getitem__(self, image: str) -> da.Array:
        array = self._arrays[image]
        return da.from_array(array, chunks=array.blocks, fancy=False, inline_array=True, meta=np.empty(0, array.dtype))

    def array(self, image: str) -> ImageArray:
        """The same without dask: an array that is read when it is indexed, and that knows its axes and channels.

        `segment_array` segments it as `segment` does the file.
        """
        return self._arrays[image]

    def axes(self, image: str) -> str:
        """Letters of its axes: `tczyx`, or `tszyx` for a colour image, as `segment_array` takes them."""
        return self._arrays[image].axes

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def open_images(images: PathLike, *, pattern: str | None = None, **options: Any) -> Images:
    """Opens the images of a collection as `segment` finds and reads them; their pixels are read on access.

    Args:
        images: IN: a folder, file, glob, `@list.txt`, OME-Zarr store or URL.
        pattern: Only images whose name matches this glob pattern, or whose path matches if it has a `/`.
        options: `channel`, `axes`, `max_pixels` (pixels) and `region` (pixels) of `nucseg_batch.SegmentSettings`.

    Returns:
        The images by name, sorted, each a dask array (t, c, z, y, x); what cannot be opened is in its `failures`.

    Raises:
        UsageError: An option is unknown or has an invalid value.
        InputMissingError: There are no images.
        NothingToDoError: None of the images can be opened.
    """
    settings = _settings("open_images", READ_OPTIONS, options)
    place = os.fspath(images)
    found = with_channels(discover(place, pattern=pattern, axes=settings.axes), settings.channel)
    scanned = scan_headers(found, settings, lambda done: None)
    root = found.root if "://" in found.root else os.path.abspath(found.root)
    arrays: dict[str, ImageArray] = {}
    failures = list(found.failures)
    for one in scanned.scanned:
        try:
            arrays[one.entry.key] = _image_array(root, one, settings)
        except ImageError as error:
            failures.append(Failure(one.entry.key, "plan", type(error.__cause__ or error).__name__, str(error)))
    if not arrays:
        raise none_usable(place, failures)
    return Images(arrays, tuple(sorted(failures, key=lambda failure: failure.image)))


def segment_array(
    x: Any,
    *,
    axes: str | None = None,
    chunk: tuple[int, int] | None = None,
    model: PathLike | None = None,
    dense: bool = False,
    planes_per_block: int = 1,
    **options: Any,
) -> da.Array:
    """Segments an array of any size lazily, with the labels that `segment` gives the same pixels.

    Planes are segmented as a whole, or in the regions of `segment` if they are large; nuclei are whole across the
    blocks of x and of the result. The range of intensities and the size of nuclei are those of the whole plane, and
    are measured when the first block of it is computed. Works under every scheduler of dask; each process loads the
    model once.

    Args:
        x: A dask or zarr array, or another one with shape and dtype that is indexed with slices, in blocks of any size;
            `open_images(IN).array(name)` too. Any integer, bool or float dtype.
        axes: A letter for each axis, such as `zyx` or `tczyx`, in any order; s stands for the samples of a colour.
            None takes `yx` for two axes, `tczyx` for five, and the dimension names of a zarr array.
        chunk: Height and width in pixels of the pieces in which x is stored. Of planes above 134 million pixels a
            sample of such pieces is looked at to find the range of intensities. None takes the chunks of a zarr array,
            and 512 x 512 for others, however they are divided into blocks.
        model: A file made by `train`, which all processes see at this path, or the name of a model kept by
            `nucseg-batch models add`; None for the default model.
        dense: Whether the nuclei of each plane are numbered 1..n, exactly as `segment` does. Before the first block of
            a large plane is there, all of it is segmented. If False, a block is computed from its surroundings alone,
            and the label of a nucleus of a large plane follows from its place: large numbers with gaps, which
            neighbouring blocks agree on without knowing of each other.
        planes_per_block: Most planes in a block of the result, along z and then t, if planes are segmented as a whole.
            All planes of a block are segmented when one of them is needed, in batches. A block has at most 64 MiB as
            uint32. Changes only speed.
        options: `channel` (number from 0, or a name that x knows; colours as for `segment`), `diameter` (pixels),
            `threshold`, `min_area` (pixels), `augment`, `pixel_size`, `region` (pixels), `skip_empty`, `device`,
            `precision`, `batch_size` and `memory` of `nucseg_batch.SegmentSettings`.

    Returns:
        A lazy label image with the axes of x but for c and s: uint32 if dense, else int64; 0 is background. A block is
        `planes_per_block` whole planes, or a region of a large one.

    Raises:
        UsageError: An option is unknown or invalid, or the array is none that can be segmented.
        InputMissingError: There is no such model.
    """
    settings = _settings("segment_array", ARRAY_OPTIONS, options)
    whole = isinstance(planes_per_block, int | np.integer) and not isinstance(planes_per_block, bool)
    check(whole and planes_per_block >= 1, "planes_per_block", "a whole number, 1 or more", planes_per_block)
    letters = array_axes(x, axes)
    chunk = chunk or _stored_chunk(x, letters)
    header = array_header(x, letters, chunk)
    try:
        channel = nuclei_channel(header, settings.channel, ONE_CHANNEL)
    except ImageError as error:
        why = str(error).replace("--channel", "channel")
        raise UsageError(f"channel: {why} For an RGB image of a collection, give images.array(name).") from error
    given = None if model is None else find_model(model, "model")
    path = default_model() if given is None else given.absolute()
    times, depths = ((0, header.length(axis), 1) if axis in letters else None for axis in "TZ")
    info = ImageInfo(
        key="array",
        size=0,
        mtime_ns=0,
        height=header.length("Y"),
        width=header.length("X"),
        channels=3 if "S" in letters else 1,
        dtype=header.dtype,
        t=times,
        z=depths,
        group="",
    )
    sha256 = file_sha256(path)
    identity = x.name if isinstance(x, da.Array) else x
    token = tokenize(identity, letters, chunk, settings.result_options(), sha256, int(planes_per_block))
    job = tasks.ArrayJob(
        f"nucseg-{token}",
        ArraySource(x, letters, chunk, channel),
        LabelArray(info.height, info.width, (info,), settings.region, planes_per_shard=int(planes_per_block)),
        settings,
        "" if given is None else str(path),
        sha256,
    )
    labels = _lazy_labels(job, dense=dense)
    left = [letter for letter in letters if letter in "TZYX"]
    order = [job.label_array.axes.upper().index(letter) for letter in left]
    return labels if order == sorted(order) else labels.transpose(order)


def _lazy_labels(job: tasks.ArrayJob, *, dense: bool) -> da.Array:
    """The labels of a job, with the axes of its label array, one task for each block and what these share."""
    label_array, name = job.label_array, job.name
    grid = label_array.grid
    whole, scales, labels = f"{name}-array", f"{name}-scales", f"{name}-{'dense' if dense else 'labels'}"
    dtype = "uint32" if dense else "int64"
    graph: dict[Any, Any] = {whole: job, scales: (tasks.run_scales, whole)}
    for number in range(grid.count):
        key = (labels, *grid.block(number))
        if not label_array.regional:
            graph[key] = (partial(tasks.segment_planes, number=number, dtype=dtype), whole, scales)
            continue
        plane = LargePlane.of(Unit(label_array, number)).number
        survey, joined = f"{name}-survey-{plane}", f"{name}-joined-{plane}"
        region = f"{name}-region-{number}"
        graph.setdefault(survey, (partial(tasks.survey_plane, number=plane), whole, scales))
        graph[region] = (partial(tasks.segment_region, number=number), whole, survey)
        if not dense:
            graph[key] = (partial(tasks.labels_by_root, number=number), whole, region)
            continue
        first = plane * grid.per_plane
        regions = [f"{name}-region-{first + i}" for i in range(grid.per_plane)]
        graph.setdefault(joined, (tasks.join_regions, whole, regions))
        graph[key] = (partial(tasks.labels_in_order, number=number), whole, region, joined)
    lengths = zip(grid.shape, grid.shard, strict=True)
    chunks = tuple(tuple(min(step, n - start) for start in range(0, n, step)) for n, step in lengths)
    return da.Array(HighLevelGraph.from_collections(labels, graph, dependencies=[]), labels, chunks, dtype=dtype)


def _settings(function: str, known: tuple[str, ...], options: dict[str, Any]) -> SegmentSettings:
    """Settings from keyword arguments; UsageError for those that a function has not."""
    settings = settings_of(options)
    foreign = [name for name in options if name not in known]
    if foreign:
        raise UsageError(f"{function} has no option {foreign[0]}; it has {', '.join(known)}.")
    return settings


def _stored_chunk(x: Any, letters: str) -> tuple[int, int] | None:
    """Height and width of the pieces in which an array is stored, where it says so."""
    if isinstance(x, da.Array):
        return None
    if isinstance(x, ImageArray):
        return x.chunk
    chunks = getattr(x, "chunks", None)
    if not chunks or len(chunks) != len(letters):
        return None
    return int(chunks[letters.index("Y")]), int(chunks[letters.index("X")])


def _image_array(root: str, one: ScannedImage, settings: SegmentSettings) -> ImageArray:
    """An image whose header was read; raises ImageError where it cannot be opened."""
    entry, header = one.entry, one.header
    if header is None:
        raise ImageError(one.outcome.message if isinstance(one.outcome, Failure) else "it has no header.")
    info = image_info(entry.key, header, settings, files=entry.files, nuclei=entry.nuclei, group=entry.group)
    channels = header.channels if "C" in header.axes else ()
    return ImageArray(root, info, settings, channels, header.chunk)
