from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from pictures import disks, fluorescence

from nucseg_batch.arrays.scale import mirrored, nearest, resampling
from nucseg_batch.arrays.seams import RIM
from nucseg_batch.network import regions
from nucseg_batch.network.bands import BAND, bands, needed
from nucseg_batch.network.batching import CALL_PIXELS
from nucseg_batch.network.model_file import Model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.network.regions import (
    CODE,
    LEAST_SIDE,
    SEPARATION,
    LabelTile,
    TileRoom,
    WindowGrid,
    plane_frame,
    tiles,
)
from nucseg_batch.plan import SEPARATION_BYTES, Budget
from nucseg_batch.settings import DEFAULT_MEMORY, SegmentSettings

REACHES = [WindowGrid(96, 16), WindowGrid(64, 32), WindowGrid(124, 4)]
SCALES = [1.0, 2**-0.5, 2**0.5, 4.0, 0.25, 1 / 16, 1.37]
CASES = [
    *itertools.product([(701, 97)], SCALES, [64, 500], REACHES),
    *itertools.product([(1537, 823)], [1.0, 2**-0.5, 2**0.5], [500, 512], REACHES[:1]),
]


ROOM = TileRoom(CALL_PIXELS)
"""Of a GPU: nothing limits windows."""


def all_tiles(
    shape: tuple[int, int], scale: float, region: int, reach: WindowGrid, room: TileRoom = ROOM
) -> list[list[LabelTile]]:
    """Tiles of each region, the regions in raster order."""
    frame = plane_frame(shape, scale)
    grid = [[slice(a, min(a + region, n)) for a in range(0, n, region)] for n in shape]
    return [list(tiles(frame, (rows, columns), region, reach, room)) for rows in grid[0] for columns in grid[1]]


def used(length: int, target: int, places: np.ndarray) -> np.ndarray:
    """The first and the last pixel that resampling to each of `places` looks at."""
    parts = [resampling(length, target, place[None])[0] for place in places]
    return np.array([[part.start, part.stop - 1] for part in parts])


@pytest.mark.parametrize("side", [regions.TILE_SIDE, 130])
@pytest.mark.parametrize(("shape", "scale", "region", "reach"), CASES)
def test_cores_and_roots_divide_the_plane(
    shape: tuple[int, int], scale: float, region: int, reach: WindowGrid, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pixel has one tile that labels it and every root one tile that owns it, none two."""
    monkeypatch.setattr(regions, "TILE_SIDE", side)
    found = [tile for region_tiles in all_tiles(shape, scale, region, reach) for tile in region_tiles]
    bucket = found[0].frame.bucket
    for name, size in (("core", shape), ("roots", bucket)):
        areas = [math.prod(part.stop - part.start for part in tile.part(name)) for tile in found]
        assert sum(areas) == math.prod(size)
        assert min(areas) >= 0
        seen = np.zeros(size, np.uint8)
        for tile in found:
            seen[tile.part(name)] += 1
        assert (seen == 1).all()


@pytest.mark.parametrize("side", [regions.TILE_SIDE, 130])
@pytest.mark.parametrize(("shape", "scale", "region", "reach"), CASES)
def test_every_window_holds_what_the_next_one_needs(
    shape: tuple[int, int], scale: float, region: int, reach: WindowGrid, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Core with margin in the grid, its scaled image in the window, the network's reach in what it sees."""
    monkeypatch.setattr(regions, "TILE_SIDE", side)
    for tile in (tile for region_tiles in all_tiles(shape, scale, region, reach) for tile in region_tiles):
        for axis, one in enumerate((tile.rows, tile.columns)):
            native, scaled, bucket = (s[axis] for s in (tile.frame.native, tile.frame.scaled, tile.frame.bucket))
            margin = math.ceil(SEPARATION * native / scaled)
            assert one.grid.start <= max(0, one.core.start - margin)
            assert one.grid.stop >= min(native, one.core.stop + margin)
            assert one.grid.start <= max(0, one.core.start - RIM)
            assert one.grid.stop >= min(native, one.core.stop + RIM)
            assert 0 <= one.window.start < one.window.stop <= bucket
            assert one.window.start % CODE == one.window.start % reach.stride == 0
            assert one.window.stop % reach.stride == 0
            assert one.seen.start % reach.stride == one.seen.stop % reach.stride == 0
            assert one.seen.start <= max(0, one.window.start - reach.halo)
            assert one.seen.stop >= min(bucket, one.window.stop + reach.halo)
            assert one.source.start <= one.grid.start < one.grid.stop <= one.source.stop
            assert 0 <= one.source.start < one.source.stop <= native
            if tile.frame.is_native:
                assert one.grid == slice(one.window.start, min(native, one.window.stop))
                shown = mirrored(bucket, scaled)[one.seen]
            else:
                assert one.grid.start % BAND == one.window.start % BAND == one.seen.start % BAND == 0
                ends = np.array([one.grid.start, one.grid.stop - 1])
                shown = used(scaled, native, ends)
                assert one.window.start <= max(0, shown.min() - 1)
                assert one.window.stop >= min(scaled, shown.max() + 2)
                near = nearest(scaled, native, ends)
                assert one.window.start <= near.min() <= near.max() < one.window.stop
                places = mirrored(bucket, scaled)[one.seen]
                shown = used(native, scaled, np.array([places.min(), places.max()]))
            assert one.source.start <= shown.min() <= shown.max() < one.source.stop


@pytest.mark.parametrize("scale", [1.0, 0.7071, 2.0])
def test_windows_are_of_few_shapes(scale: float) -> None:
    """Each is compiled: a plane of a hundred regions must not need a hundred programs."""
    found = [tile for some in all_tiles((30011, 30047), scale, 3072, REACHES[0]) for tile in some]
    shapes = set()
    for tile in found:
        lengths = [part.stop - part.start for name in ("window", "seen") for part in tile.part(name)]
        if not tile.frame.is_native:
            lengths += [part.stop - part.start for part in tile.part("source")]
            lengths += [-(-(part.stop - part.start) // BAND) for part in tile.part("grid")]
        shapes.add(tuple(lengths))
    assert len(found) >= 100
    assert len(shapes) <= 9


@pytest.mark.parametrize(("halo", "seen"), [(96, 1.49), (208, 1.91)])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_what_halos_cost_is_bounded(halo: int, seen: float, scale: float) -> None:
    """At the default size of regions, of the networks of version 0.2 and of this one; separation sees 18 % more."""
    reach = WindowGrid(halo, 16)
    found = all_tiles((30011, 30047), scale, 3072, reach)[11]
    area = (scale * 3072) ** 2
    assert sum(math.prod(part.stop - part.start for part in tile.part("window")) for tile in found) < 1.18 * area
    pixels = 0
    for tile in found:
        strips = regions._strips(tile.rows.window, tile.columns.seen, reach, CALL_PIXELS)
        calls = [(strip.stop - strip.start + 2 * halo) * _length(tile.columns.seen) for strip in strips]
        assert max(calls) <= CALL_PIXELS
        pixels += sum(calls)
    assert pixels < seen * area


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2**0.5, 2.0])
def test_windows_fit_the_default_memory_and_cost_little_more(scale: float, precision: str) -> None:
    """Separating nuclei in a window of a plane that is enlarged must not take more than its part of the budget."""
    budget, reach = Budget(DEFAULT_MEMORY, precision), WindowGrid(208, 16)
    limited = TileRoom(budget.call_pixels, budget.window_pixels)
    assert budget.window_pixels * SEPARATION_BYTES < budget.network_bytes
    few, fewest = (
        all_tiles((30011, 30047), scale, 3072, reach, room)[11] for room in (limited, TileRoom(limited.call))
    )
    assert max(_pixels(tile, "window") for tile in few) <= budget.window_pixels
    assert _seen(few, reach, limited.call) <= 1.05 * _seen(fewest, reach, limited.call)


def test_tiles_do_not_depend_on_the_memory_of_a_run(default_network: Model) -> None:
    """A run may be resumed with another --memory, and on another machine."""
    little, much = (
        Predictor(default_network, SegmentSettings(memory=memory, device="cpu")) for memory in ("1.5GB", "16GB")
    )
    bounds = slice(3072, 6144), slice(0, 3072)
    for scale in (1.0, 2.0):
        tiled = [one.tiles((7001, 9001), scale, bounds, 3072) for one in (little, much)]
        assert len(tiled[0]) >= 4
        assert tiled[0] == tiled[1]


def test_a_window_that_never_fits_is_as_small_as_it_may_be() -> None:
    """A machine of very little memory: the run is slow, and does not stop."""
    found = all_tiles((3011, 3047), 1.0, 3072, WindowGrid(208, 16), TileRoom(2**19, 1000))[0]
    assert len(found) == 36
    assert all(_length(part) <= LEAST_SIDE for tile in found for part in tile.part("core"))


def _seen(found: list[LabelTile], reach: WindowGrid, call: int) -> int:
    """Pixels that the network sees for these tiles."""
    pixels = 0
    for tile in found:
        strips = regions._strips(tile.rows.window, tile.columns.seen, reach, call)
        pixels += sum((_length(strip) + 2 * reach.margin) * _length(tile.columns.seen) for strip in strips)
    return pixels


def _pixels(tile: LabelTile, name: str) -> int:
    return math.prod(_length(part) for part in tile.part(name))


def _length(part: slice) -> int:
    return int(part.stop - part.start)


@pytest.mark.parametrize(("length", "target"), [(701, 496), (701, 991), (701, 2804), (701, 44), (97, 97), (13, 52)])
def test_resampling_in_bands_is_resampling(length: int, target: int) -> None:
    """Against the matrix of the whole axis, from windows of the source that hold just what is needed."""
    values = np.random.default_rng(5).random(length).astype(np.float32)
    places = mirrored(-(-target // 64) * 64, target)
    source, weights = resampling(length, target, places)
    expected = weights @ values[source]
    for start in range(0, places.size, 32):
        some = places[start : start + 32]
        window = needed(length, target, some)
        way = bands(length, target, some, window)
        assert way.weights.shape == (some.size // BAND, BAND, way.index.shape[1])
        found = np.einsum("bpr,br->bp", way.weights, values[window][way.index]).ravel()
        np.testing.assert_allclose(found, expected[start : start + 32], rtol=1e-5)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    places = [(40 + 55 * i, 30 + 50 * j) for i in range(7) for j in range(5)]
    return fluorescence(disks((419, 269), places, 12))


@pytest.mark.parametrize("scale", [1.0, 2**0.5])
def test_where_memory_runs_out_a_tile_is_the_same_in_smaller_calls(
    predictor: Predictor, image: np.ndarray, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: how much memory a machine has must not show in masks."""
    (tile,) = predictor.tiles(image.shape, scale, (slice(0, 300), slice(0, 269)), 300)
    pixels = image[tile.part("source")]
    labels, roots, support = predictor.label_tile(tile, pixels, (15.0, 220.0))
    assert labels.max() == len(roots) >= 25
    calls = []
    whole = regions.label_tile

    def with_little_memory(*args: object) -> object:
        calls.append(args[-1])
        if args[-1] > 2**19:
            raise MemoryError
        return whole(*args[:-1], 2**16)  # many strips, as of a much larger tile

    monkeypatch.setattr(regions, "label_tile", with_little_memory)
    monkeypatch.setattr(predictor, "_call_pixels", 2**21)
    again, same_roots, same_support = predictor.label_tile(tile, pixels, (15.0, 220.0))
    assert calls == [2**21, 2**20, 2**19]
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_array_equal(same_roots, roots)
    np.testing.assert_array_equal(same_support, support)


class Late:
    """A result that a device has promised and then has no memory for, as JAX gives it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes.")


def test_lack_of_memory_that_shows_only_when_an_answer_is_fetched_leads_to_smaller_calls(
    predictor: Predictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX computes after a call has returned: what it promised must be fetched where errors are heard."""
    (tile,) = predictor.tiles(image.shape, 1.0, (slice(0, 300), slice(0, 269)), 300)
    pixels = image[tile.part("source")]
    expected = predictor.label_tile(tile, pixels, (15.0, 220.0))
    program, heights = predictor._program, []
    called = program._called

    def promised(method: object, first: np.ndarray, *others: object) -> object:
        heights.append(first.shape[1])
        return Late((1, 20, 20, 12)) if heights == [first.shape[1]] else called(method, first, *others)

    monkeypatch.setattr(program, "_called", promised)
    monkeypatch.setattr(predictor, "_call_pixels", 2**20)
    found = predictor.label_tile(tile, pixels, (15.0, 220.0))
    assert predictor._call_pixels == 2**19
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(MemoryError, match="no room"):
        program.fetched(Late((1, 20, 20, 12)))


@pytest.mark.parametrize("scale", [1.0, 2**0.5])
def test_a_planes_labels_do_not_depend_on_its_tiles(
    predictor: Predictor, image: np.ndarray, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, nor does their support: how much memory there is decides the tiles, and must not show."""
    monkeypatch.setattr(regions, "WHOLE_PIXELS", 0)
    plane, reach = np.tile(image, (3, 4)), predictor._reach
    frame = plane_frame(plane.shape, scale)
    labelling, limits = predictor._labelling_for(frame), predictor.range_of(plane)
    expected = regions.label_image(labelling, frame, plane, limits, reach, TileRoom(2**22), 2**22)
    assert len(expected.roots) > 300
    whole = tuple(slice(0, length) for length in plane.shape)
    layouts = set()
    for window in (900_000, 700_000, 500_000):
        room = TileRoom(2**19, window)
        layouts.add(len(list(tiles(frame, whole, max(plane.shape), reach, room))))
        found = regions.label_image(labelling, frame, plane, limits, reach, room, 2**19)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(layouts) >= 2
    assert min(layouts) > 1


def test_the_answer_of_a_tile_leaves_the_device_strip_by_strip(
    predictor: Predictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend keeps the memory that it once needed: it must never hold the answer of a whole tile."""
    (tile,) = predictor.tiles(image.shape, 1.0, (slice(0, 419), slice(0, 269)), 419)
    program, seen = predictor._program, []
    run = program.run

    def counted(method: Any, first: Any, *others: Any, **options: Any) -> Any:
        seen.append(method.__name__)
        return run(method, first, *others, **options)

    monkeypatch.setattr(program, "run", counted)
    monkeypatch.setattr(program, "call", None)
    monkeypatch.setattr(program, "joined", None)
    monkeypatch.setattr(predictor, "_call_pixels", 2**17)
    assert predictor.label_tile(tile, image[tile.part("source")], (15.0, 220.0)).labels.max() >= 25
    assert seen == ["heads"] * (len(seen) - 1) + ["probability"]
    assert len(seen) > 2


def test_where_even_small_calls_do_not_fit_the_memory_is_out(
    predictor: Predictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is told, instead of ever smaller calls."""

    def without_memory(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(regions, "label_tile", without_memory)
    monkeypatch.setattr(predictor, "_call_pixels", 2**21)
    (tile,) = predictor.tiles(image.shape, 1.0, (slice(0, 300), slice(0, 269)), 300)
    with pytest.raises(MemoryError):
        predictor.label_tile(tile, image[tile.part("source")], (15.0, 220.0))


def test_a_grey_picture_is_the_same_as_colour(predictor: Predictor, image: np.ndarray) -> None:
    """Rescaling treats the three channels alike."""
    (tile,) = predictor.tiles(image.shape, 2**0.5, (slice(0, 300), slice(0, 269)), 300)
    grey = image[tile.part("source")]
    expected = predictor.label_tile(tile, grey, (15.0, 220.0))
    colour = predictor.label_tile(tile, np.stack([grey] * 3, axis=-1), (15.0, 220.0))
    for one, other in zip(colour, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tiles_of_a_single_value_are_skipped_and_labels_stay_the_same(
    predictor: Predictor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nuclei in the corner of a large empty image."""
    plane = np.full((1303, 1201), 15, np.uint8)
    plane[: image.shape[0], : image.shape[1]] = image
    monkeypatch.setattr(regions, "TILE_SIDE", 512)
    monkeypatch.setattr(regions, "WHOLE_PIXELS", 0)
    labelled = []
    one = regions.label_tile
    monkeypatch.setattr(regions, "label_tile", lambda *given: labelled.append(given[1]) or one(*given))
    found = predictor.predict(plane, 2**0.5)
    some = len(labelled)
    monkeypatch.setattr(regions, "is_constant", lambda _: False)
    expected = predictor.predict(plane, 2**0.5)
    assert found.max() >= 35
    assert some < len(labelled) - some == 16
    np.testing.assert_array_equal(found, expected)
