"""A run as layers of a viewer, as plain data: what napari is given, read when it is looked at.

One image is a layer of its pixels and one of its nuclei, with time points and depths as axes; nuclei that are joined
over slices, or linked over time points, are further ones, and those of planes are hidden. Many images of one shape are
the same with an axis `image`, along which one turns the pages. Where a layer has several planes, nuclei are numbered on
from plane to plane, so that each has a row of its own in the table of features.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.normalize import percentile_range
from nucseg_batch.compartments import NUCLEI_LABEL, VOLUMES
from nucseg_batch.errors import NothingToDoError, NucsegError
from nucseg_batch.files.masks.ngff import level_name, levels_listed
from nucseg_batch.files.masks.nodes import read_attributes
from nucseg_batch.files.names import printable
from nucseg_batch.files.zarr.opening import open_array
from nucseg_batch.results.image_lookup import rows_of, rows_together
from nucseg_batch.results.linked_layers import (
    TracksLayer,
    renumbered,
    tracks_layer,
    volume_features,
    volume_offsets,
)
from nucseg_batch.results.picture import stretched
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.results.spacing import spacing_of
from nucseg_batch.results.tables import PlaneRow
from nucseg_batch.results.tracks import RunTracks
from nucseg_batch.results.volumes import RunVolumes

PIECE = 1024
"""Side in pixels of the pieces in which the pixels of a large plane are read."""
LONGEST = 2048
"""Planes with a longer side than this are read in pieces, and get smaller levels until none is longer."""
STEP = 4
"""From one of these levels to the next."""
SHOWN = ("area", "area_um2", "confidence", "intensity_mean", "eccentricity")
"""Columns of nuclei.csv that a viewer shows of a nucleus, where they are there."""


@dataclass(frozen=True)
class Layer:
    """One layer."""

    kind: str
    """`image` or `labels`."""
    name: str
    """What to call it."""
    levels: list[da.Array]
    """(planes..., height, width), or with three colours last: at full resolution, then smaller."""
    scale: tuple[float, ...]
    """Distance of neighbours along its axes, colours aside."""
    rgb: bool = False
    """Whether the last axis is colours."""
    limits: tuple[float, float] | None = None
    """The values that are shown black and white; None to leave that to the viewer."""
    features: dict[str, list[Any]] = field(default_factory=dict)
    """Of labels: what is known of each nucleus, by column; `index` is its number in this layer."""
    visible: bool = True
    """Whether it is shown at first."""


@dataclass(frozen=True)
class RunView:
    """What is shown of a run."""

    layers: list[Layer]
    """The image, where its pixels can be read, and the labels over it: nuclei, and volumes or nuclei by track."""
    axes: tuple[str, ...]
    """Names of the axes of all layers, colours aside."""
    unit: str | None
    """Unit of the scale along y and x; None where it is pixels."""
    notes: list[str]
    """What is shown and what not, a line each."""
    tracks: TracksLayer | None = None
    """The tracks of a movie; None where its nuclei are not linked."""


def view_of(run: FinishedRun, image: str | None) -> RunView:
    """The layers of an image, or of the images of one shape that has most of them.

    Raises InputMissingError, with what is like it, for an image that is not there, and NothingToDoError where nothing
    has a mask.
    """
    rows, notes = (rows_of(run, image), []) if image is not None else rows_together(run)
    good = [row for row in rows if row.segmented]
    if not good:
        raise NothingToDoError(f"{run.store}: {image or 'none of its images'} has no mask to show.")
    if len(good) < len(rows):
        notes.append(f"{len(rows) - len(good)} of {len(rows)} planes have no mask and are empty.")
    for row in good:
        run.check_written(row)
    axes, shape = _axes(rows)
    spacing = spacing_of(run, good[0])
    scale = tuple(spacing.steps.get(axis, 1.0) for axis in axes)
    offsets = np.cumsum([0, *(row.nuclei for row in rows[:-1])]).tolist()
    group = run.store / good[0].mask
    levels = _label_levels(run, group, rows, offsets, shape)
    layers = [Layer("labels", NUCLEI_LABEL, levels, scale, features=_features(run, rows, offsets))]
    if "z" in axes and group.with_name(VOLUMES).is_dir():
        layers.append(_volumes_layer(run, group.with_name(VOLUMES), rows, shape, scale))
        notes.append("volumes: the button for 3D, or Ctrl-Y, shows them in space.")
    tracks = RunTracks(run.store).of(rows[0]) if "t" in axes else None
    linked = None if tracks is None else tracks_layer(rows, tracks)
    if linked is not None:
        own = _label_levels(run, group, rows, linked.numbers, shape)
        layers.append(Layer("labels", "nuclei by track", own, scale))
    layers[0] = replace(layers[0], visible=len(layers) == 1)
    try:
        layers.insert(0, _image_layer(run, rows, good[0], shape, scale))
    except (OSError, NucsegError) as error:
        notes.append(f"only masks are shown: {error} --images says where images are now.")
    names = tuple({"i": "image"}.get(axis, axis) for axis in axes)
    return RunView(layers, names, None if spacing.pixel is None else "um", notes, linked)


def add_layers(viewer: Any, view: RunView) -> None:
    """Gives the layers to napari's Viewer, or to its ViewerModel, which has no window."""
    for layer in view.layers:
        several = len(layer.levels) > 1
        options: dict[str, Any] = {"name": layer.name, "scale": layer.scale, "multiscale": several}
        data = layer.levels if several else layer.levels[0]
        if layer.kind == "labels":
            viewer.add_labels(data, features=layer.features, opacity=0.5, visible=layer.visible, **options)
        else:
            viewer.add_image(data, rgb=layer.rgb, contrast_limits=layer.limits, **options)
    if view.tracks is not None and len(view.tracks.points):
        scale = view.layers[0].scale
        viewer.add_tracks(view.tracks.points, graph=view.tracks.graph, name="tracks", scale=scale)
    viewer.dims.axis_labels = view.axes
    if view.unit is not None:
        viewer.scale_bar.visible = True
        viewer.scale_bar.unit = view.unit


def _axes(rows: Sequence[PlaneRow]) -> tuple[str, tuple[int, ...]]:
    """Letters of the axes of a layer, and the lengths of those before y."""
    several = len({row.image for row in rows}) > 1
    if several:
        return "iyx", (len(rows),)
    lengths = {axis: len({row.key[place] for row in rows}) for place, axis in ((1, "t"), (2, "z"))}
    there = [axis for axis in lengths if getattr(rows[0], axis) is not None]
    return "".join(there) + "yx", tuple(lengths[axis] for axis in there)


def _stacked(planes: list[da.Array], shape: tuple[int, ...]) -> da.Array:
    """Planes as one array with axes before y of these lengths."""
    if not shape:
        return planes[0]
    stack = da.stack(planes)
    return stack.reshape((*shape, *stack.shape[1:])) if len(shape) > 1 else stack


def _volumes_layer(
    run: FinishedRun, group: Path, rows: Sequence[PlaneRow], shape: tuple[int, ...], scale: tuple[float, ...]
) -> Layer:
    """The nuclei that are joined over slices, with what volumes.csv says of them."""
    volumes = RunVolumes(run.store).of(rows[0]) or {}
    offsets = volume_offsets(rows, volumes)
    features = volume_features(rows, offsets, volumes)
    return Layer("labels", VOLUMES, _label_levels(run, group, rows, offsets, shape), scale, features=features)


def _label_levels(
    run: FinishedRun,
    group: Path,
    rows: Sequence[PlaneRow],
    numbers: Sequence[int | NDArray[np.uint32]],
    shape: tuple[int, ...],
) -> list[da.Array]:
    """A label image, given by its group, at all levels that the store has.

    numbers: for each plane what is added to its labels, or the number that each of its labels gets.
    """
    levels = []
    for level in range(max(1, levels_listed(read_attributes(group)))):
        array = da.from_zarr(open_array(group / level_name(level), mode="r"))
        planes = []
        for row, number in zip(rows, numbers, strict=True):
            if row.segmented:
                mask = array[run.mask_array(row)[1]]
                planes.append(_numbered_from(mask, number) if isinstance(number, int) else renumbered(mask, number))
            else:
                planes.append(da.zeros(array.shape[-2:], np.uint32, chunks=array.chunksize[-2:]))
        levels.append(_stacked(planes, shape))
    return levels


def _numbered_from(mask: da.Array, offset: int) -> da.Array:
    return da.where(mask > 0, mask + np.uint32(offset), np.uint32(0)) if offset else mask


def _image_layer(
    run: FinishedRun, rows: Sequence[PlaneRow], good: PlaneRow, shape: tuple[int, ...], scale: tuple[float, ...]
) -> Layer:
    """The pixels as the network saw them; of several images each with the contrast stretched by itself, in colour."""
    several = rows[0].image != rows[-1].image
    lock = threading.Lock()

    def read(row: PlaneRow, rows: slice, columns: slice) -> NDArray[Any]:
        with lock:  # a run is read by one thread at a time
            pixels = run.shown(row, rows, columns).pixels
        return stretched(pixels) if several else pixels

    large = max(good.shape) > LONGEST
    sample = read(good, slice(0, 1), slice(0, 1)) if large or several else read(good, slice(None), slice(None))
    planes = [
        _plane(read, row, good.shape, sample)
        if row.segmented
        else da.zeros((*good.shape, *sample.shape[2:]), sample.dtype)
        for row in rows
    ]
    levels = [_stacked(planes, shape)]
    rgb = sample.ndim == 3
    while max(good.shape) > LONGEST * STEP ** (len(levels) - 1):
        thin = (slice(None, None, STEP), slice(None, None, STEP), *([slice(None)] if rgb else []))
        levels.append(levels[-1][(..., *thin)])
    limits = percentile_range(sample) if not (large or rgb) else None
    if limits is not None and limits[0] >= limits[1]:
        limits = None
    return Layer("image", "images" if several else printable(good.image), levels, scale, rgb=rgb, limits=limits)


def _plane(read: Any, row: PlaneRow, shape: tuple[int, int], sample: NDArray[Any]) -> da.Array:
    """The pixels of a plane, to be read when they are wanted: whole, or in pieces where it is large."""
    step = PIECE if max(shape) > LONGEST else max(shape)
    blocks: list[list[da.Array]] = []
    for top in range(0, shape[0], step):
        blocks.append([])
        for left in range(0, shape[1], step):
            window = slice(top, min(top + step, shape[0])), slice(left, min(left + step, shape[1]))
            lengths = tuple(side.stop - side.start for side in window)
            piece = dask.delayed(functools.partial(read, row, *window), pure=False, traverse=False)()
            array = da.from_delayed(piece, (*lengths, *sample.shape[2:]), sample.dtype)
            blocks[-1].append(array)
    return da.concatenate([da.concatenate(line, axis=1) for line in blocks], axis=0)


def _features(run: FinishedRun, rows: Sequence[PlaneRow], offsets: Sequence[int]) -> dict[str, list[Any]]:
    """What is known of each nucleus of all planes, the background first."""
    numbers = {row.key: offset for row, offset in zip(rows, offsets, strict=True)}
    shown = [name for name in SHOWN if name in run.nuclei_columns]
    features: dict[str, list[Any]] = {"index": [0], "nucleus": [0], **{name: [np.nan] for name in shown}}
    several = len(rows) > 1
    if several:
        features["plane"] = [""]
    for row, nuclei in run.with_nuclei(iter(rows)):
        labels = nuclei.labels
        features["index"] += (labels + numbers[row.key]).tolist()
        features["nucleus"] += labels.tolist()
        for name in shown:
            features[name] += nuclei[name].tolist()
        if several:
            features["plane"] += [printable(row.name)] * len(nuclei)
    return features
