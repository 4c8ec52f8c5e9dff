"""A large plane done region by region: what a region finds, and what its regions find together.

A region is labelled with a margin, so that each nucleus is seen whole by the region that owns it and measured there.
What is kept of a region, a `RegionResult`, has ids of its own; once all regions of a plane are done, `arrays.seams`
gives each nucleus one id, and `mask` and `MergedIds.of` turn results into the plane's shards and rows.

Nothing here reads or writes files: pixels come from a function, results are arrays.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.exposure import APART, Exposure
from nucseg_batch.arrays.sampling import is_constant, nothing_bright
from nucseg_batch.arrays.seams import MergedIds, Rect, RegionSeams, grown, join, spans
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.columns import MEASURED, Column, channel_columns
from nucseg_batch.pipeline.channels import NetworkInput
from nucseg_batch.pipeline.measuring import measured_nuclei
from nucseg_batch.plan import Unit

Read = Callable[[slice, slice], NetworkInput]
"""Gives a window of the plane, rows and columns of its own pixels."""


class RegionTile(Protocol):
    """What is done of a region at once."""

    def part(self, name: str) -> Rect:
        """Rows and columns of `core`, `grid` and `source` in the plane's pixels, of `roots` at the network's scale."""
        ...


class Labeller(Protocol):
    """What regions need of a predictor."""

    def tiles(self, shape: tuple[int, int], scale: float, bounds: Rect, region: int) -> Sequence[RegionTile]:
        """The tiles of a region of a plane of this shape."""
        ...

    def label_tile(self, tile: Any, pixels: NDArray[Any], limits: tuple[float, float]) -> SeparatedNuclei:
        """Labels 1..n of the tile's `grid` from the pixels of its `source`, their roots and the pixels' support."""
        ...


@dataclass(frozen=True, kw_only=True)
class RegionLabels:
    """The nuclei of one region; ids are its own, 1..n."""

    part: RegionSeams
    """The nuclei that it owns or that reach into it, for joining."""
    labels: NDArray[np.uint32]
    """Their labels over the core and its rim, `seams.grown(part.core, shape)`."""
    lost: tuple[int, int] = (0, 0)
    """Labels and pixels that became background where tiles of the region did not agree, see `seams.MergedIds`."""


@dataclass(frozen=True, kw_only=True)
class RegionResult(RegionLabels):
    """What one region found: its nuclei and what was measured of them."""

    measures: dict[str, NDArray[Any]]
    """What `measured_nuclei` says of them, in the order of their ids, in the plane's coordinates."""
    exposure: Exposure
    """Of the measured intensity over the core."""
    skipped: int = 0
    """Pixels of the core that were passed over as empty."""


@dataclass(frozen=True)
class TileResult:
    """What the device found in one tile."""

    tile: RegionTile
    """Where it lies."""
    shown: NetworkInput
    """Its pixels."""
    labels: NDArray[np.int32] | None
    """Labels of its grid; None where it was passed over as empty."""
    roots: NDArray[np.int64]
    """The root of each label, in pixels of the scaled plane."""
    support: NDArray[np.uint8] | None = None
    """How far pixels of the grid support their nucleus, see `arrays.confidence`; None where nobody says."""


def region_tiles(unit: Unit, predictor: Labeller, scale: float) -> Sequence[RegionTile]:
    """The tiles of a region; `part("source")` of each is what must be read for it."""
    label_array = unit.label_array
    return predictor.tiles((label_array.height, label_array.width), scale, _bounds(unit), label_array.region)


def find(
    tile: RegionTile, shown: NetworkInput, predictor: Labeller, limits: tuple[float, float], *, skip_empty: bool = False
) -> TileResult:
    """Labels one tile on the device, unless it is empty; shown: its `source`."""
    recorded = shown.pixels if shown.recorded is None else shown.recorded
    if is_constant(recorded) or (skip_empty and nothing_bright(shown.pixels, limits)):
        return TileResult(tile, shown, None, np.zeros((0, 2), np.int64))
    return TileResult(tile, shown, *predictor.label_tile(tile, shown.pixels, limits))


def labelled(unit: Unit, found: Sequence[TileResult]) -> RegionLabels:
    """The nuclei of a region from what was found in its tiles, without measuring them."""
    shape = (unit.label_array.height, unit.label_array.width)
    results = [_tile_nuclei(one, shape).of_core for one in found]
    return results[0] if len(results) == 1 else _joined_labels(results, _bounds(unit), shape, found)[0]


def finished(unit: Unit, found: Sequence[TileResult], extra: Sequence[Column] = ()) -> RegionResult:
    """Measures what was found in the tiles of a region, and joins them to one; extra: as for `measured_nuclei`."""
    shape = (unit.label_array.height, unit.label_array.width)
    results = [_measured(one, shape, extra) for one in found]
    return results[0] if len(results) == 1 else _joined_tiles(results, _bounds(unit), shape, found)


def mask(result: RegionLabels, ids: NDArray[np.integer], shape: tuple[int, int]) -> NDArray[Any]:
    """The core's final labels; ids: the entry of `MergedIds.ids` for this region, or `root_ids`."""
    core = result.part.core
    if not result.part.keys.size:
        return np.zeros([side.stop - side.start for side in core], ids.dtype)
    return ids[result.labels[_within(core, grown(core, shape))]]


def root_ids(result: RegionLabels) -> NDArray[np.int64]:
    """An id for each of its labels, (n + 1,) with that of the background, from the place of the nucleus' root alone.

    All regions that see a nucleus give it the same id, as long as they agree on its root; see `arrays.seams`.
    """
    return np.concatenate([[0], result.part.keys + 1])


def packed(result: RegionLabels) -> bytes:
    """A region's labels, and its result where that is given, as bytes, compressed, until the whole plane is done."""
    part = result.part
    arrays: dict[str, NDArray[Any]] = {
        "core": np.array([[side.start, side.stop] for side in part.core]),
        "lost": np.array(result.lost),
        "shape": np.array(result.labels.shape),
        "labels": result.labels if part.keys.size else result.labels[:0],
        **{f"part.{name}": getattr(part, name) for name in _PART},
    }
    if isinstance(result, RegionResult):
        arrays |= {"skipped": np.array(result.skipped), "exposure": result.exposure.numbers()}
        arrays |= {f"measures.{name}": values for name, values in result.measures.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return bytes(imagecodecs.zstd_encode(file.getvalue(), level=1))


def unpacked(data: bytes, *, labels: bool = True) -> RegionResult:
    """The result of `packed`; without its `labels` where these are not needed."""
    with _opened(data) as arrays:
        measures = {name.removeprefix("measures."): arrays[name] for name in arrays if name.startswith("measures.")}
        exposure, skipped = Exposure.from_numbers(arrays["exposure"]), int(arrays["skipped"])
        return RegionResult(**_labels_in(arrays, labels), measures=measures, exposure=exposure, skipped=skipped)


def unpacked_labels(data: bytes, *, labels: bool = True) -> RegionLabels:
    """The same of labels that were packed without a result, or with one."""
    with _opened(data) as arrays:
        return RegionLabels(**_labels_in(arrays, labels))


def _opened(data: bytes) -> Any:
    return np.load(io.BytesIO(imagecodecs.zstd_decode(data)), allow_pickle=False)


def _labels_in(arrays: Any, labels: bool) -> dict[str, Any]:
    """The fields of `RegionLabels` among arrays that were packed."""
    rows, columns = (slice(int(a), int(b)) for a, b in arrays["core"])
    part = RegionSeams((rows, columns), **{name: arrays[f"part.{name}"] for name in _PART})
    none = np.zeros(arrays["shape"] if labels else (0, 0), np.uint32)
    lost, pixels = (int(number) for number in arrays["lost"])
    return {"part": part, "labels": arrays["labels"] if labels and part.keys.size else none, "lost": (lost, pixels)}


_PART = ("keys", "owned", "pixels", "areas", "spans")


def _bounds(unit: Unit) -> Rect:
    rows, columns = unit.bounds[-2:]
    return rows, columns


def _within(part: Rect, window: Rect) -> Rect:
    """A part of a window, counted from where the window begins."""
    rows, columns = (slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, window, strict=True))
    return rows, columns


@dataclass(frozen=True)
class _TileNuclei:
    """The nuclei 1..n of a tile that it owns or that reach into its core."""

    of_core: RegionLabels
    """What the tile says of them."""
    labels: NDArray[np.integer]
    """Their labels over the tile's grid."""
    everything: NDArray[np.uint32]
    """The same, where all other nuclei are n + 1."""


def _tile_nuclei(found: TileResult, shape: tuple[int, int]) -> _TileNuclei:
    """The nuclei of a tile of a plane of this shape."""
    tile = found.tile
    core, grid = tile.part("core"), tile.part("grid")
    rim = grown(core, shape)
    if found.labels is None:
        none = np.zeros(0, np.int64)
        part = RegionSeams(core, none, none.astype(bool), none, none, none)
        rim_labels = np.zeros([side.stop - side.start for side in rim], np.uint32)
        nothing = np.zeros((1, 1), np.uint32)
        return _TileNuclei(RegionLabels(part=part, labels=rim_labels), nothing.astype(np.int32), nothing)
    labels, roots = found.labels, found.roots
    if not len(roots):
        labels, roots = _foreground(found)
    inside, anywhere = (_pixels(labels[_within(where, grid)], len(roots)) for where in (core, grid))
    y, x = roots.T
    rows, columns = tile.part("roots")
    owned = (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop) & (anywhere > 0)
    kept = owned | (inside > 0)
    count = int(np.count_nonzero(kept))
    numbers = np.concatenate([[0], np.where(kept, np.cumsum(kept), count + 1)]).astype(np.uint32)
    everything = numbers[labels]
    kept_labels = everything * (everything <= count)
    near = np.ascontiguousarray(kept_labels[_within(rim, grid)])
    reach = spans(near, core, shape, count)
    part = RegionSeams(core, (y * ROW + x)[kept], owned[kept], inside[kept], anywhere[kept], reach)
    return _TileNuclei(RegionLabels(part=part, labels=near), kept_labels, everything)


def _measured(found: TileResult, shape: tuple[int, int], extra: Sequence[Column]) -> RegionResult:
    """Measures the nuclei of one tile that it owns or that reach into its core."""
    tile = found.tile
    core, grid, source = (tile.part(name) for name in ("core", "grid", "source"))
    nuclei = _tile_nuclei(found, shape)
    rows, columns = _within(core, source)
    beside = rows, slice(columns.start, columns.stop + APART)
    recorded = None if found.shown.recorded is None else found.shown.recorded[beside]
    width = columns.stop - columns.start
    exposure = Exposure.of(found.shown.intensity[beside], width, top_row=core[0].start, recorded=recorded)
    if found.labels is None:
        channels = {name: np.zeros((1, 1)) for name in found.shown.channels}
        measures = measured_nuclei(nuclei.labels, np.zeros((1, 1)), channels, None, extra)
        skipped = math.prod(side.stop - side.start for side in core)
    else:
        near = _within(grid, source)
        channels = {name: plane[near] for name, plane in found.shown.channels.items()}
        intensity = found.shown.intensity[near]
        measures = measured_nuclei(nuclei.labels, intensity, channels, found.support, extra, nuclei.everything)
        skipped = 0
    for column in (*MEASURED, *extra, *channel_columns(channels, extra)):
        if column.axis is not None:
            measures[column.name] = measures[column.name] + grid[column.axis].start
    of_core = nuclei.of_core
    return RegionResult(part=of_core.part, labels=of_core.labels, measures=measures, exposure=exposure, skipped=skipped)


def _foreground(found: TileResult) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Labels without roots, the plain mask of a semantic model: what lies in the core is one nucleus of the tile."""
    assert found.labels is not None
    core, grid, roots = (found.tile.part(name) for name in ("core", "grid", "roots"))
    labels = np.zeros_like(found.labels)
    labels[_within(core, grid)] = found.labels[_within(core, grid)]
    return labels, np.array([[part.start for part in roots]] if labels.any() else np.zeros((0, 2)), np.int64)


ROW = 2**31
"""A root at (y, x) of the scaled plane has the key y * ROW + x."""


def _pixels(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Pixels of each label 1..count."""
    return np.bincount(labels.ravel(), minlength=count + 1)[1:]


def _joined_tiles(
    results: Sequence[RegionResult], core: Rect, shape: tuple[int, int], found: Iterable[TileResult]
) -> RegionResult:
    """The tiles of a region as one result."""
    one, first = _joined_labels(results, core, shape, found)
    measures = {name: np.concatenate([tile.measures[name] for tile in results])[first] for name in results[0].measures}
    measures["label"] = np.arange(1, one.part.keys.size + 1)
    exposure, skipped = Exposure.joined([tile.exposure for tile in results]), sum(tile.skipped for tile in results)
    return RegionResult(
        part=one.part, labels=one.labels, measures=measures, exposure=exposure, skipped=skipped, lost=one.lost
    )


def _joined_labels(
    results: Sequence[RegionLabels], core: Rect, shape: tuple[int, int], found: Iterable[TileResult]
) -> tuple[RegionLabels, NDArray[np.int64]]:
    """The nuclei of a region from those of its tiles, and the place of each among those of one tile after the other."""
    roots = [one.tile.part("roots") for one in found]
    rows, columns = (
        slice(min(part[axis].start for part in roots), max(part[axis].stop for part in roots)) for axis in (0, 1)
    )

    def beyond(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
        y, x = np.divmod(keys, ROW)
        return (y < rows.start) | (y >= rows.stop) | (x < columns.start) | (x >= columns.stop)

    joined = join([one.part for one in results], lambda i: results[i].labels, shape, beyond=beyond)
    labels = _composed(results, joined, core, shape)
    first = np.cumsum([0, *(one.part.keys.size for one in results)])[joined.part] + joined.label - 1
    areas = np.concatenate([one.part.areas for one in results])[first]
    reach = spans(labels, core, shape, joined.keys.size)
    part = RegionSeams(core, joined.keys, joined.owned, joined.pixels, areas, reach)
    return RegionLabels(part=part, labels=labels, lost=(joined.lost, joined.lost_pixels)), first


def _composed(
    results: Sequence[RegionLabels], joined: MergedIds, core: Rect, shape: tuple[int, int]
) -> NDArray[np.uint32]:
    """The labels of a region and its rim from those of its tiles: each core from its own tile, the rim from any."""
    whole = grown(core, shape)
    labels = np.zeros([side.stop - side.start for side in whole], np.uint32)
    for name in ("rim", "core"):
        for one, ids in zip(results, joined.ids, strict=True):
            mine = grown(one.part.core, shape)
            wanted = mine if name == "rim" else one.part.core
            labels[_within(wanted, whole)] = ids[one.labels[_within(wanted, mine)]]
    return labels
