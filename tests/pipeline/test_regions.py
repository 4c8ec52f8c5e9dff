from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import disks, fluorescence
from real_nuclei import made_nuclei

from nucseg_batch.arrays import seams
from nucseg_batch.arrays.exposure import Exposure
from nucseg_batch.arrays.geometry import ResampleGeometry
from nucseg_batch.arrays.sampling import survey_intensities
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.columns import Column, requested_columns
from nucseg_batch.files.run.tables import plane_summary
from nucseg_batch.network import large, regions
from nucseg_batch.network.labelling import Separation
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.network.regions import LabelTile, TileRoom, WindowGrid, plane_frame, tiles
from nucseg_batch.pipeline.channels import NetworkInput
from nucseg_batch.pipeline.measuring import measured_nuclei
from nucseg_batch.pipeline.regions import (
    Labeller,
    RegionLabels,
    RegionResult,
    find,
    finished,
    labelled,
    mask,
    packed,
    region_tiles,
    unpacked,
    unpacked_labels,
)
from nucseg_batch.plan import ImageInfo, LabelArray, Unit

LIMITS = (0.0, 1.0)


@dataclass
class Oracle:
    """A predictor that reads labels from the pixels: each pixel is the number of its nucleus.

    It knows the roots of all nuclei; `doubt` moves those that a tile finds, by the place of the tile.
    """

    roots: dict[int, tuple[int, int]]
    doubt: int = 0
    calls: list[LabelTile] = field(default_factory=list)

    def tiles(self, shape: tuple[int, int], scale: float, bounds: seams.Rect, region: int) -> list[LabelTile]:
        return list(tiles(plane_frame(shape, scale), bounds, region, WindowGrid(32, 16), TileRoom(2**19)))

    def label_tile(self, tile: LabelTile, pixels: np.ndarray, limits: tuple[float, float]) -> SeparatedNuclei:
        self.calls.append(tile)
        grid, source = tile.part("grid"), tile.part("source")
        seen = pixels[tuple(slice(g.start - s.start, g.stop - s.start) for g, s in zip(grid, source, strict=True))]
        scale = tile.frame.scaled[0] / tile.frame.native[0]
        known = {k: tuple(int(p * scale) for p in self.roots[k]) for k in np.unique(seen).tolist() if k}
        if self.doubt:
            rng = np.random.default_rng(tile.rows.core.start * 10_000 + tile.columns.core.start + self.doubt)
            known = {k: tuple(np.clip(np.add(p, rng.integers(-1, 2, 2)), 0, 10**6)) for k, p in known.items()}
        order = sorted(known, key=lambda k: known[k])
        table = np.zeros(int(seen.max(initial=0)) + 1, np.int32)
        table[order] = np.arange(1, len(order) + 1)
        return SeparatedNuclei(
            table[seen], np.array([known[k] for k in order], np.int64).reshape(-1, 2), support_of(seen)
        )


@dataclass(frozen=True)
class Whole:
    """A plane put together from its regions."""

    labels: np.ndarray
    measures: dict[str, np.ndarray]
    results: list[RegionResult]
    joined: seams.MergedIds


def support_of(numbers: np.ndarray) -> np.ndarray:
    """How sure the oracle is of a pixel: it depends on the nucleus and is the same wherever that is seen."""
    return np.where(numbers > 0, 255 - numbers.astype(np.int64) % 100, 0).astype(np.uint8)


def units_of(shape: tuple[int, int], region: int) -> list[Unit]:
    stack = LabelArray(*shape, (ImageInfo("slide.tif", 1, 1, *shape, 1, "uint16"),), region)
    return [Unit(stack, number) for number in range(stack.grid.count)]


def by_regions(
    shown: NetworkInput,
    predictor: Labeller,
    region: int,
    *,
    scale: float = 1.0,
    extra: Sequence[Column] = (),
    **options: object,
) -> Whole:
    """Does a plane by regions, last first, and puts it together."""
    shape = shown.intensity.shape

    def read(rows: slice, columns: slice) -> NetworkInput:
        channels = {name: plane[rows, columns] for name, plane in shown.channels.items()}
        return NetworkInput(shown.pixels[rows, columns], shown.intensity[rows, columns], channels)

    units = units_of(shape, region)
    limits = options.pop("limits", LIMITS)

    def done(unit: Unit) -> RegionResult:
        tiles = region_tiles(unit, predictor, scale)
        found = [find(tile, read(*tile.part("source")), predictor, limits, **options) for tile in tiles]
        result = finished(unit, found, extra)
        assert_same_labels(labelled(unit, found), result)
        assert_same_labels(unpacked_labels(packed(labelled(unit, found))), result)
        return result

    results = [done(unit) for unit in reversed(units)][::-1]
    joined = seams.join([one.part for one in results], lambda i: results[i].labels, shape)
    labels = np.zeros(shape, np.uint32)
    for unit, result, ids in zip(units, results, joined.ids, strict=True):
        labels[unit.bounds[-2:]] = mask(result, ids, shape)
    rows = []
    for i, result in enumerate(results):
        own, new = joined.of(i)
        rows.append({name: values[own - 1] for name, values in result.measures.items()} | {"label": new})
    return Whole(labels, {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}, results, joined)


def assert_same_labels(found: RegionLabels, expected: RegionLabels) -> None:
    """Labels, and what is needed to join them, measured or not."""
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert (found.part.core, found.lost) == (expected.part.core, expected.lost)
    for name in ("keys", "owned", "pixels", "areas", "spans"):
        np.testing.assert_array_equal(getattr(found.part, name), getattr(expected.part, name), err_msg=name)


def assert_same_nuclei(
    found: Whole, labels: np.ndarray, shown: NetworkInput, extra: Sequence[Column] = (), atol: float = 0
) -> None:
    """The partition of the plane, dense ids, and statistics as those of the whole mask."""
    pairs = set(zip(found.labels.ravel().tolist(), labels.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == labels.max() + 1
    assert found.labels.max() == labels.max()
    expected = measured_nuclei(found.labels, shown.intensity, shown.channels, support_of(shown.pixels), extra)
    assert found.measures.keys() == expected.keys()
    for name, values in expected.items():
        assert values.dtype == found.measures[name].dtype
        np.testing.assert_allclose(found.measures[name], values, rtol=1e-12, atol=atol, err_msg=name)


@pytest.fixture
def labels() -> np.ndarray:
    """Disks all over a plane, some of them on a corner of four regions of 100 or cut by the plane's edge."""
    rng = np.random.default_rng(2)
    centres = [(100, 100), (200, 99), (4, 150), (310, 400)]
    while len(centres) < 60:
        centre = (int(rng.integers(0, 313)), int(rng.integers(0, 409)))
        if all(math.dist(centre, other) > 26 for other in centres):
            centres.append(centre)
    return disks((313, 409), centres, 12)


@pytest.fixture
def shown(labels: np.ndarray) -> NetworkInput:
    rng = np.random.default_rng(3)
    dapi, actin = (rng.integers(0, 4000, labels.shape).astype(np.uint16) for _ in range(2))
    return NetworkInput(labels.astype(np.uint16), dapi, {"DAPI": dapi, "actin": actin})


def roots_of(labels: np.ndarray) -> dict[int, tuple[int, int]]:
    return {k: tuple(np.argwhere(labels == k).mean(axis=0).astype(int)) for k in range(1, labels.max() + 1)}


@pytest.mark.parametrize("side", [regions.TILE_SIDE, 64])
@pytest.mark.parametrize(("region", "scale"), [(100, 1.0), (64, 1.0), (128, 0.7071), (100, 1.4142), (128, 2.0)])
def test_a_plane_done_by_regions_has_the_nuclei_and_statistics_of_the_whole(
    labels: np.ndarray, shown: NetworkInput, region: int, scale: float, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a region is one tile or several, and at any scale of the network."""
    monkeypatch.setattr(regions, "TILE_SIDE", side)
    found = by_regions(shown, Oracle(roots_of(labels)), region, scale=scale)
    assert_same_nuclei(found, labels, shown)
    assert found.joined.lost == 0
    corner = found.labels[98:102, 98:102]
    assert corner.min() == corner.max() > 0


@pytest.mark.parametrize("doubt", [1, 2, 3])
def test_roots_that_regions_see_a_pixel_apart_cost_no_nucleus(
    labels: np.ndarray, shown: NetworkInput, doubt: int
) -> None:
    """As where a device's arithmetic depends on the shape of a window: the labels that two regions share decide."""
    found = by_regions(shown, Oracle(roots_of(labels), doubt), 100)
    assert_same_nuclei(found, labels, shown)
    assert found.joined.lost == 0


@pytest.mark.parametrize("side", [regions.TILE_SIDE, 64])
def test_optional_columns_of_a_plane_done_by_regions_are_those_of_the_whole(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nuclei that touch lie on both sides of borders: whether they touch needs those that a region does not measure."""
    monkeypatch.setattr(regions, "TILE_SIDE", side)
    _, labels = np.unique(made_nuclei((313, 409), 150, seed=6), return_inverse=True)
    labels = np.where(np.isin(labels, np.flatnonzero(np.bincount(labels.ravel()) > 60)), labels, 0)
    _, labels = np.unique(labels, return_inverse=True)
    pixels = np.random.default_rng(7).integers(0, 4000, labels.shape).astype(np.uint16)
    shown = NetworkInput(labels.astype(np.uint16), pixels, {"DAPI": pixels, "actin": pixels[::-1]})
    extra = requested_columns("all")
    found = by_regions(shown, Oracle(roots_of(labels)), 100, extra=extra)
    assert_same_nuclei(found, labels, shown, extra, 1e-15)
    assert 0 < np.count_nonzero(found.measures["touching_fraction"]) < labels.max()
    assert {"centroid_weighted-0-actin", "edge_intensity_sum", "moments_hu-6"} < found.measures.keys()


def test_what_is_kept_of_a_region_survives_packing(labels: np.ndarray, shown: NetworkInput) -> None:
    """It waits on disk until the whole plane is done; labels of a region are most of it, and compress well."""
    result = by_regions(shown, Oracle(roots_of(labels)), 128).results[4]
    data = packed(result)
    assert data == packed(result)
    assert len(data) < result.labels.nbytes
    back = unpacked(data)
    np.testing.assert_array_equal(back.labels, result.labels)
    assert back.labels.dtype == np.uint32
    assert back.part.core == result.part.core
    for name in ("keys", "owned", "pixels", "areas", "spans"):
        np.testing.assert_array_equal(getattr(back.part, name), getattr(result.part, name))
    assert back.measures.keys() == result.measures.keys()
    for name, values in result.measures.items():
        np.testing.assert_array_equal(back.measures[name], values)
    assert (back.exposure, back.skipped, back.lost) == (result.exposure, result.skipped, result.lost)
    assert unpacked(data, labels=False).labels.size == 0


def test_the_summary_of_a_plane_is_that_of_its_whole_mask(labels: np.ndarray, shown: NetworkInput) -> None:
    """From sums of regions; exact, because each nucleus is measured once and whole."""
    found = by_regions(shown, Oracle(roots_of(labels)), 100)
    exposure = Exposure.joined([result.exposure for result in found.results])
    whole = measured_nuclei(labels, shown.intensity, {}, support_of(shown.pixels))
    expected = plane_summary(labels.shape, whole, Exposure.of(shown.intensity), 0.5, 0.25)
    values = plane_summary(labels.shape, found.measures, exposure, 0.5, 0.25)
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-12), name
    none = {name: column[:0] for name, column in found.measures.items()}
    nothing = plane_summary((7, 11), none, Exposure.of(np.ones((7, 11))), 1.0, None)
    assert (nothing["nuclei"], nothing["area_mean"], nothing["intensity_background"]) == (0, None, 1.0)


def test_empty_regions_never_reach_the_network() -> None:
    """What was not scanned is of one value; what has nothing bright in it is passed over only when asked for."""
    labels = disks((203, 1009), [(40, 40), (100, 100), (150, 60)], 12)
    pixels = labels.astype(np.uint16) * 20
    pixels[::2, 500:] = 3
    roots = {20 * k: root for k, root in roots_of(labels).items()} | {3: (0, 0)}  # the speckle looks like a label
    units = units_of(labels.shape, 64)
    every = [tile for unit in units for tile in Oracle({}).tiles(labels.shape, 1.0, unit.bounds[-2:], 64)]
    for skip_empty in (False, True):
        oracle = Oracle(roots)
        found = by_regions(NetworkInput(pixels, pixels), oracle, 64, skip_empty=skip_empty, limits=(0.0, 60.0))
        seen = [pixels[tile.part("source")] for tile in every]
        done = [t for t, p in zip(every, seen, strict=True) if p.max() > (12 if skip_empty else 0)]
        assert [tile.part("core") for tile in done] == [tile.part("core") for tile in oracle.calls][::-1]
        assert 0 < len(done) < len(every)
        areas = [math.prod(part.stop - part.start for part in tile.part("core")) for tile in done]
        assert sum(result.skipped for result in found.results) == labels.size - sum(areas)
        assert np.array_equal(found.labels[:, :400] > 0, labels[:, :400] > 0)


def test_a_plane_without_nuclei_is_an_empty_mask(labels: np.ndarray) -> None:
    """No rows, and columns as ever."""
    pixels = np.random.default_rng(1).integers(3, 5, labels.shape).astype(np.uint8)
    none = NetworkInput(np.zeros_like(pixels), pixels, {"DAPI": pixels})
    extra = requested_columns("all")
    found = by_regions(none, Oracle({}), 128, extra=extra)
    assert not found.labels.any()
    assert found.measures.keys() == measured_nuclei(labels, pixels, {"DAPI": pixels}, None, extra).keys()
    assert all(values.size == 0 for values in found.measures.values())


def test_a_plain_foreground_is_one_label_a_region(labels: np.ndarray, shown: NetworkInput) -> None:
    """What a semantic model gives has no roots: regions are measured each for itself, and no pixel is lost."""

    class Foreground(Oracle):
        def label_tile(self, *args: object) -> SeparatedNuclei:
            found = super().label_tile(*args)
            return SeparatedNuclei(np.minimum(found.labels, 1), np.zeros((0, 2), np.int64), found.support)

    found = by_regions(shown, Foreground(roots_of(labels)), 128)
    assert np.array_equal(found.labels > 0, labels > 0)
    regions_with_some = [unit for unit in units_of(labels.shape, 128) if labels[unit.bounds[-2:]].any()]
    assert found.labels.max() == len(regions_with_some) == found.measures["label"].size
    np.testing.assert_array_equal(found.measures["area"], np.bincount(found.labels.ravel())[1:])


def mosaic(folder: Path, shape: tuple[int, int]) -> np.ndarray:
    """Real fluorescence images of 256 x 256, stretched to one range and laid side by side."""
    image = np.zeros(shape, np.uint8)
    paths = sorted((folder / "dsb2018" / "test" / "images").glob("*.png"))
    pictures = (imagecodecs.png_decode(path.read_bytes()) for path in paths)
    small = (picture if picture.ndim == 2 else picture[..., 0] for picture in pictures if picture.shape[1] == 256)
    places = [(y, x) for y in range(0, shape[0], 256) for x in range(0, shape[1], 256)]
    for (y, x), picture in zip(places, small, strict=False):
        low, high = survey_intensities(lambda *window, of=picture: of[window], picture.shape).limits
        part = image[y : y + 256, x : x + 256]
        part[...] = np.clip((picture - low) / (high - low) * 180 + 15, 0, 255)[: part.shape[0], : part.shape[1]]
    return image


@pytest.mark.real_data
@pytest.mark.parametrize(("scale", "region"), [(1.0, 256), (1.0, 250), (2**-0.5, 250), (2**0.5, 256)])
def test_a_mosaic_of_real_images_shows_no_seam(shared: Path, predictor: Predictor, scale: float, region: int) -> None:
    """Segmented whole and by regions: at least 999 of 1000 nuclei equal, none cut along a seam, statistics the same."""
    image = mosaic(shared, (613, 709))
    limits = survey_intensities(lambda *window: image[window], image.shape).limits
    frame = plane_frame(image.shape, scale)
    labelling = predictor._labelling_for(frame)
    whole, _, whole_support = _whole(labelling, image, limits, frame)
    assert whole.max() > 60
    found = by_regions(NetworkInput(image, image), predictor, region, scale=scale, limits=limits)
    equal = equal_nuclei(whole, found.labels)
    assert equal >= 0.999 * whole.max()
    assert equal >= 0.999 * found.labels.max()
    assert sorted(np.unique(found.labels).tolist()) == list(range(found.labels.max() + 1))
    expected = measured_nuclei(found.labels, image, {}, whole_support)
    confidence, unsure = found.measures.pop("confidence"), expected.pop("confidence")
    assert np.abs(confidence - unsure).max() < 0.05  # of nuclei on seams that roots divide otherwise
    assert np.median(np.abs(confidence - unsure)) == 0
    for name, values in expected.items():
        np.testing.assert_allclose(found.measures[name], values, rtol=1e-12, err_msg=name)


@pytest.mark.real_data
@pytest.mark.parametrize("scale", [1.0, 2**-0.5, 2**0.5])
def test_an_image_in_memory_is_the_same_in_tiles(
    shared: Path, predictor: Predictor, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large for one call: nuclei that tiles share are whole, and all are numbered as in the image as a whole."""
    monkeypatch.setattr(regions, "TILE_SIDE", 256)
    monkeypatch.setattr(regions, "WHOLE_PIXELS", 2**16)
    image = mosaic(shared, (613, 709))
    limits = survey_intensities(lambda *window: image[window], image.shape).limits
    frame, reach = plane_frame(image.shape, scale), WindowGrid(predictor.model.info.network.halo, 16)
    room = TileRoom(2**19)
    assert len(list(regions.tiles(frame, tuple(slice(0, n) for n in image.shape), 709, reach, room))) >= 4
    labelling = predictor._labelling_for(frame)
    whole = _whole(labelling, image, limits, frame)
    found = regions.label_image(labelling, frame, image, limits, reach, room, 2**19)
    equal = equal_nuclei(whole.labels, found.labels)
    assert equal >= 0.999 * max(whole.labels.max(), found.labels.max())
    assert np.mean((whole.labels > 0) == (found.labels > 0)) > 0.9999
    assert np.mean(whole.support == found.support) > 0.999
    first = {int(label): int(place) for label, place in zip(*np.unique(found.labels, return_index=True), strict=True)}
    assert sorted(first) == list(range(len(first)))


def _whole(
    labelling: Separation, image: np.ndarray, limits: tuple[float, float], frame: ResampleGeometry
) -> SeparatedNuclei:
    """The plane labelled in one piece."""
    return large.found(
        labelling, large.heads(labelling.program, image, limits, frame, labelling.program.spec.halo), frame
    )


def equal_nuclei(a: np.ndarray, b: np.ndarray) -> int:
    """Labels of `a` with an IoU above 0.99 with one of `b`."""
    pairs, shared = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1, return_counts=True)
    union = np.bincount(a.ravel())[pairs[0]] + np.bincount(b.ravel())[pairs[1]] - shared
    return int(((pairs > 0).all(axis=0) & (shared > 0.99 * union)).sum())


def test_the_picture_of_a_plane_is_the_same_by_regions_and_whole(predictor: Predictor) -> None:
    """Disks instead of real data, so that this is checked everywhere."""
    labels = disks((301, 331), [(40 + 60 * i, 40 + 64 * j) for i in range(5) for j in range(5)], 12)
    image = fluorescence(labels)
    frame = plane_frame(image.shape, 1.0)
    labelling = predictor._labelling_for(frame)
    limits = survey_intensities(lambda *window: image[window], image.shape).limits
    whole = _whole(labelling, image, limits, frame).labels
    found = by_regions(NetworkInput(image, image), predictor, 100, limits=limits)
    assert whole.max() == found.labels.max() == equal_nuclei(whole, found.labels) == 25
