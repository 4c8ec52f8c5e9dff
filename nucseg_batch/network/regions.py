"""Regions of a large plane: where their tiles lie, and which nuclei a tile finds.

A region is done in tiles, one unless the plane is enlarged for the network. A tile labels its core and a margin around
it that is wide enough to hold whole every nucleus whose root, the place where most of its pixels vote, lies in the
core; around that the network sees as far as it reaches. All windows lie on grids fixed by the plane, so what a tile
finds at a place is what any other tile finds there. Windows are of few shapes, because each is compiled.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.geometry import ResampleGeometry
from nucseg_batch.arrays.sampling import is_constant
from nucseg_batch.arrays.scale import mirrored
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.network import large
from nucseg_batch.network.bands import BAND, needed
from nucseg_batch.network.labelling import Answer, Cut, Separation
from nucseg_batch.network.large import Window
from nucseg_batch.plan import bucket_shape

SEPARATION = 64
"""Margin around a core in which nuclei are labelled, in pixels at the network's scale: they reach less far from their
root, and nuclei that reach into the core from further away would be too large for the network to know."""
TILE_SIDE = 2048
"""Longest side of a tile's core in pixels at the network's scale."""
LEAST_SIDE = 512
"""Cores are not made shorter than this to save memory: ever more of what the network sees would be margins."""
WHOLE_PIXELS = 4_400_000
"""Nuclei of images of at most so many pixels, at the network's scale, are separated in the image as a whole."""
CODE = 16
"""Windows in which nuclei are separated begin at multiples of this, so that ties are broken alike in all of them."""
SHORT_STEP = 128
"""Windows shorter than the others, at the ends of a plane, are as long as a multiple of this."""


@dataclass(frozen=True)
class WindowGrid:
    """What of a network decides about windows."""

    halo: int
    """Pixels around a place that can change its answer, a multiple of the stride."""
    stride: int
    """Sides of windows are multiples of this."""

    @property
    def step(self) -> int:
        """Where windows may begin."""
        return math.lcm(self.stride, CODE, BAND)

    @property
    def margin(self) -> int:
        """The halo in whole steps."""
        return _up(self.halo, self.step)


@dataclass(frozen=True)
class TileRoom:
    """What decides how large tiles are, in pixels at the network's scale.

    It is the same for all processes of a run: where a nucleus reaches further than SEPARATION, labels depend on it.
    """

    call: int
    """Pixels that the network sees in one call at most."""
    window: float = math.inf
    """Pixels of the window in which nuclei are separated, at most, as far as cores need not be shorter than LEAST_SIDE
    for that."""


@dataclass(frozen=True)
class TileSide:
    """A tile along one axis of its plane.

    ```text
    in the plane's own pixels     source  |------------------------|
                                  grid         |--------------|
                                  core            |--------|
    in those of the scaled plane  roots           |--------|
                                  window      |----------------|
                                  seen    |------------------------|
    ```

    `grid` is `core` and a margin in which nuclei are whole. Its labels are interpolated from `window`; `seen` is that
    and the network's halo, and is interpolated from `source`.
    """

    core: slice
    """What it is responsible for, in the plane's own pixels."""
    roots: slice
    """Nuclei whose root is here, in pixels of the scaled plane, are its own; open where the plane ends."""
    grid: slice
    """What it labels, in the plane's own pixels."""
    window: slice
    """Where nuclei are separated, in pixels of the padded scaled plane."""
    seen: slice
    """What the network sees, in pixels of the padded scaled plane."""
    source: slice
    """What must be read for that, in the plane's own pixels; it covers `grid`."""


@dataclass(frozen=True)
class LabelTile:
    """A part of a plane that is labelled at once."""

    frame: ResampleGeometry
    """The plane."""
    rows: TileSide
    """Along y."""
    columns: TileSide
    """Along x."""

    def part(self, name: str) -> Window:
        """Rows and columns of one of the fields of `TileSide`."""
        return getattr(self.rows, name), getattr(self.columns, name)


def plane_frame(shape: tuple[int, int], scale: float) -> ResampleGeometry:
    """The frame of a plane that is done by regions, which is enlarged however many pixels it has."""
    height, width = shape
    return ResampleGeometry((height, width), (max(1, round(height * scale)), max(1, round(width * scale))))


def tiles(
    frame: ResampleGeometry, bounds: Window, region: int, reach: WindowGrid, room: TileRoom, side: int | None = None
) -> Iterator[LabelTile]:
    """The tiles of one region of a plane, in raster order.

    region: longest side of all regions of the plane. side: longest side of a core, at the network's scale; None for
    what `core_counts` chooses.
    """
    counts = core_counts(frame, region, reach, room) if side is None else _least_counts(frame, region, side)
    for rows in _sides(frame, 0, bounds[0], region, reach, counts[0]):
        for columns in _sides(frame, 1, bounds[1], region, reach, counts[1]):
            yield LabelTile(frame, rows, columns)


def core_counts(frame: ResampleGeometry, region: int, reach: WindowGrid, room: TileRoom) -> tuple[int, int]:
    """In how many cores a region of full size is cut along y and x.

    As few as TILE_SIDE allows. Where their windows do not fit, those that do and for which the network sees the fewest
    pixels in all: long cores with one or two calls each cost hardly more than larger ones with many calls.
    """
    least = _least_counts(frame, region, TILE_SIDE)
    if _cost(frame, region, reach, room, least)[0] <= room.window:
        return least
    most = _least_counts(frame, region, LEAST_SIDE)
    rows, columns = (range(a, max(a, b) + 1) for a, b in zip(least, most, strict=True))
    tried = itertools.product(rows, columns)
    costs = {counts: _cost(frame, region, reach, room, counts) for counts in tried}
    fitting = {counts: seen for counts, (window, seen) in costs.items() if window <= room.window}
    return min(fitting, key=fitting.__getitem__) if fitting else min(costs, key=costs.__getitem__)


def _least_counts(frame: ResampleGeometry, region: int, side: int) -> tuple[int, int]:
    """The fewest cores of a region along y and x that are no longer than `side` at the network's scale."""
    rows, columns = (
        max(1, math.ceil(min(region, native) * scaled / native / side))
        for native, scaled in zip(frame.native, frame.scaled, strict=True)
    )
    return rows, columns


def _cost(
    frame: ResampleGeometry, region: int, reach: WindowGrid, room: TileRoom, counts: tuple[int, int]
) -> tuple[int, int]:
    """Pixels of the window of a tile inside the plane, and those that the network sees for all tiles of a region."""
    height, width = (
        _up(math.ceil(min(region, native) * scaled / native / count), reach.step) + 2 * SEPARATION + reach.step
        for native, scaled, count in zip(frame.native, frame.scaled, counts, strict=True)
    )
    across = slice(0, width + 2 * reach.margin)
    strips = _strips(slice(0, height), across, reach, room.call)
    seen = sum(strip.stop - strip.start + 2 * reach.margin for strip in strips) * across.stop
    return height * width, math.prod(counts) * seen


def label_image(
    labelling: Separation,
    frame: ResampleGeometry,
    pixels: NDArray[Any],
    limits: tuple[float, float],
    reach: WindowGrid,
    room: TileRoom,
    call_pixels: int,
) -> SeparatedNuclei:
    """Labels and support of a whole image on its own grid, found tile by tile; memory grows only with the result.

    pixels: (height, width) or (height, width, 3). limits: the values that are shown as 0 and 1. room: what decides the
    tiles. call_pixels: what the network sees in one call at most, unless its halo leaves no room. Labels are 1..n in
    the raster order of their roots; of a rescaled image some may not occur. Tiles of a single value have no nuclei.
    Raises MemoryError where the device has no room for a tile.
    """
    labels, support = np.zeros(frame.native, np.int32), np.zeros(frame.native, np.uint8)
    owned, named = [np.zeros((0, 2), np.int64)], [np.zeros((1, 2), np.int64)]  # roots; of label 0, which has none
    whole = (slice(0, frame.native[0]), slice(0, frame.native[1]))
    side = max(frame.bucket) if math.prod(frame.bucket) <= WHOLE_PIXELS else None
    for tile in tiles(frame, whole, max(frame.native), reach, room, side):
        source, core = pixels[tile.part("source")], tile.part("core")
        if is_constant(source):  # as the paper of a scanned page
            continue
        one = label_tile(labelling, tile, source, limits, reach, call_pixels)
        inner = tuple(slice(c.start - g.start, c.stop - g.start) for c, g in zip(core, tile.part("grid"), strict=True))
        found, support[core] = one.labels[inner], one.support[inner]
        if not len(one.roots):  # nothing, or a foreground that is not separated, which is label 1
            labels[core] = found
            continue
        labels[core] = np.where(found > 0, found + (sum(map(len, named)) - 1), 0)
        rows, columns = tile.part("roots")
        y, x = one.roots.T
        owned.append(one.roots[(y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)])
        named.append(one.roots)
    if len(named) == 1:
        return SeparatedNuclei(labels, owned[0], support)
    roots = np.unique(np.concatenate(owned), axis=0)  # in raster order
    return SeparatedNuclei(_places_of(np.concatenate(named), roots)[labels], roots, support)


def _places_of(roots: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int32]:
    """For each of these roots, (n, 2), its place 1..m among others in raster order, (m, 2); 0 where it is not there.

    The first is that of the background, and is not looked for.
    """
    keys, known = (y * 2**31 + x for y, x in (roots.T, among.T))
    place = np.searchsorted(known, keys)
    there = known.take(place, mode="clip") == keys if known.size else np.zeros(keys.shape, bool)
    there[0] = False
    return np.where(there, place + 1, 0).astype(np.int32)


def label_tile(
    labelling: Separation,
    tile: LabelTile,
    pixels: NDArray[Any],
    limits: tuple[float, float],
    reach: WindowGrid,
    call_pixels: int,
) -> SeparatedNuclei:
    """Labels and support of a tile's `grid`, and the root of each nucleus in pixels of the scaled plane.

    pixels: (h, w) or (h, w, 3), the tile's `source`. limits: the values of the plane that are shown as 0 and 1.
    call_pixels: as for `label_image`. Labels are 1..n in the raster order of their roots; some may not occur.
    Raises MemoryError where the device has no room.
    """
    top, left = (part.start for part in tile.part("source"))

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        return pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]

    program, block = labelling.program, labelling.program.spec.block
    window, columns = tile.rows.window, tile.columns
    skipped = columns.window.start - columns.seen.start
    inner = large.folded(slice(skipped, skipped + columns.window.stop - columns.window.start), block)

    def strips() -> Iterator[tuple[Answer, Cut]]:
        for strip in _strips(window, columns.seen, reach, call_pixels):
            rows = _around(strip, reach.margin, tile.rows.seen)
            mine = large.folded(slice(strip.start - rows.start, strip.stop - rows.start), block)
            seen = (rows, columns.seen)
            yield (
                partial(large.tile_heads, program=program, read=read, limits=limits, frame=tile.frame, window=seen),
                (mine, inner),
            )

    with labelling.tile():
        answer = labelling.joined(strips(), (window.stop - window.start) // block)
        return large.window_labels(labelling, answer, tile.frame, tile.part("window"), tile.part("grid"))


def _sides(
    frame: ResampleGeometry, axis: int, bounds: slice, region: int, reach: WindowGrid, count: int
) -> Iterator[TileSide]:
    """The cores of a region along one axis, as even as can be; count: of a region of full size."""
    longest = min(region, frame.native[axis])
    step = _up(-(-longest // count), BAND) if count > 1 else longest
    grid = math.gcd(region, step)
    for start in range(bounds.start, bounds.stop, step):
        yield _side(frame, axis, slice(start, min(start + step, bounds.stop)), step, grid, reach)


def _side(frame: ResampleGeometry, axis: int, core: slice, longest: int, grid: int, reach: WindowGrid) -> TileSide:
    """All windows of a core along one axis.

    longest: length of the cores that are not cut short. grid: cores begin at multiples of it.
    """
    native, scaled = frame.native[axis], frame.scaled[axis]
    bucket = bucket_shape(scaled, scaled)[0]
    length = min(longest, _up(core.stop - core.start, SHORT_STEP))
    rest = core.stop == native and core.stop - core.start < longest
    if frame.is_native:
        window = _window(_with_margin(core.start, length, SEPARATION, reach.step, grid), bucket, reach.step, rest)
        labelled = window
    else:
        margin = _up(math.ceil(SEPARATION * native / scaled), BAND)
        labelled = _window(_with_margin(core.start, length, margin, BAND, grid), _up(native, BAND), BAND, rest)
        window = _window(_interpolated(labelled, scaled / native, reach.step), bucket, reach.step, rest)
    labelled = slice(labelled.start, min(native, labelled.stop))
    if rest:
        seen = slice(max(0, window.start - reach.margin), bucket)
    else:
        seen = _around(window, reach.margin, slice(0, bucket))
    last = bucket if core.stop == native else _scaled(core.stop, native, scaled)
    roots = slice(_scaled(core.start, native, scaled), last)
    return TileSide(core, roots, labelled, window, seen, _source(frame, axis, seen, labelled))


def _with_margin(start: int, length: int, margin: int, step: int, grid: int) -> slice:
    """A stretch of an axis and a margin on both sides, so long that it still is where it is moved to begin at a step.

    grid: `start` is a multiple of it.
    """
    return slice(start - margin, start + length + margin + step - math.gcd(grid, step))


def _interpolated(labelled: slice, ratio: float, step: int) -> slice:
    """Pixels of the scaled plane that labels of the plane's own pixels are interpolated from; ratio: of the scales."""
    support = max(ratio, 1.0) + 2  # two more, because a pixel's neighbours are seen as well
    first = math.floor((labelled.start + 0.5) * ratio - 0.5 - support)
    return slice(first, first + math.ceil((labelled.stop - labelled.start) * ratio + 2 * support) + step)


def _source(frame: ResampleGeometry, axis: int, seen: slice, labelled: slice) -> slice:
    """The plane's own pixels that `seen` is made of, and those that are labelled."""
    native, scaled = frame.native[axis], frame.scaled[axis]
    places = mirrored(bucket_shape(scaled, scaled)[0], scaled)[seen]
    made_of = slice(int(places.min()), int(places.max()) + 1) if frame.is_native else needed(native, scaled, places)
    # One pixel more on both sides: what parts of the window need is rounded up for each of them.
    return slice(max(0, min(made_of.start - 1, labelled.start)), min(native, max(made_of.stop + 1, labelled.stop)))


def _window(wanted: slice, end: int, step: int, rest: bool) -> slice:
    """A window that holds at least `wanted`, as far as the axis goes, between multiples of `step`.

    Its length depends on that of `wanted` alone, unless it is the `rest` of the axis. `end`, a multiple of the step, is
    where the axis ends.
    """
    if rest:
        return slice(max(0, end - _up(end - max(0, wanted.start), max(step, SHORT_STEP))), end)
    size = min(end, _up(wanted.stop - wanted.start, step))
    start = max(0, min(_down(wanted.start, step), end - size))
    return slice(start, start + size)


def _strips(window: slice, across: slice, reach: WindowGrid, call_pixels: int) -> list[slice]:
    """The rows of a window in strips of equal height but for the last, for which the network sees few enough pixels."""
    height, width = window.stop - window.start, across.stop - across.start
    room = max(2 * reach.margin, call_pixels // width - 2 * reach.margin)
    step = _up(-(-height // -(-height // room)), reach.step)
    return [slice(start, min(start + step, window.stop)) for start in range(window.start, window.stop, step)]


def _around(window: slice, halo: int, within: slice) -> slice:
    """A window with the halo on both sides; moved inwards at the ends of `within`, so that it stays as long."""
    size = min(within.stop - within.start, window.stop - window.start + 2 * halo)
    start = max(within.start, min(window.start - halo, within.stop - size))
    return slice(start, start + size)


def _scaled(place: int, native: int, scaled: int) -> int:
    """The border between two pixels of an axis brought to the scaled axis, in whole numbers."""
    return (2 * place * scaled + native) // (2 * native)


def _up(length: int, step: int) -> int:
    return -(-length // step) * step


def _down(place: int, step: int) -> int:
    return place // step * step
