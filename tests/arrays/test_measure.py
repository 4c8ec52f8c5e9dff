from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy_measure
import pytest
from pictures import disks
from real_nuclei import annotated_images
from skimage.measure import regionprops_table

from nucseg_batch.arrays.kernels.measuring import shapes
from nucseg_batch.arrays.measure import measure
from nucseg_batch.columns import MEASURED, names

COLUMNS = names(MEASURED)
STANDARD = names(column for column in MEASURED if column.skimage)
PROPERTIES = tuple(dict.fromkeys(name.split("-")[0] for name in STANDARD))
INTEGERS = names(column for column in MEASURED if column.type.startswith("int"))
INTENSITY = tuple(name for name in COLUMNS if name.startswith("intensity"))
TOLERANCE = {"axis_minor_length": 1e-6, "eccentricity": 1e-6}
"""Both are roots of a difference: where it should be 0, a rounding error of 1e-16 shows as 1e-8, in either program."""


def blobs(shape: tuple[int, int], count: int, seed: int) -> np.ndarray:
    """Ragged regions that touch each other and the border: noise grouped by the nearest of some random seeds."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.indices(shape), axis=-1)[:, :, None]
    seeds = rng.uniform((0, 0), shape, (count, 2))
    distance = np.hypot(*np.moveaxis(places - seeds, -1, 0))
    reach = rng.uniform(3, 11, count)[distance.argmin(-1)]
    inside = distance.min(-1) + rng.normal(0, 1, shape) < reach
    return np.where(inside, distance.argmin(-1) + 1, 0).astype(np.int32)


def pixels(shape: tuple[int, int], dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 251, shape).astype(dtype)


def draw(*rows: str) -> np.ndarray:
    """A label image from text: digits are labels, anything else is background."""
    return np.array([[int(c) if c.isdigit() else 0 for c in row] for row in rows], np.int32)


def assert_same_angle(found: np.ndarray, expected: np.ndarray, elongated: np.ndarray) -> None:
    """Axes have no direction, so pi/2 and -pi/2 are one; a round nucleus has no axis that rounding does not choose."""
    turn = (found - expected + np.pi / 2) % np.pi - np.pi / 2
    np.testing.assert_allclose(turn[elongated], 0, atol=1e-7, err_msg="orientation")


def assert_like_regionprops(labels: np.ndarray, intensity: np.ndarray, rtol: float = 1e-9) -> dict[str, np.ndarray]:
    found = measure(labels, intensity)
    expected = regionprops_table(labels, intensity, properties=PROPERTIES)
    assert tuple(found) == COLUMNS
    assert len(found["label"]) == len(expected["label"]) > 0
    for name in STANDARD:
        if name == "orientation":
            elongated = expected["eccentricity"] > 1e-3
            assert_same_angle(found[name], expected[name], elongated)
        elif name in INTEGERS:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        else:
            atol = TOLERANCE.get(name, 1e-12)
            np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol, err_msg=name)
    return found


def test_columns_are_those_of_the_tables_in_their_order() -> None:
    """Readers of nuclei.csv may address columns by place; new ones come after these."""
    box = tuple(f"bbox-{i}" for i in range(4))
    ellipse = ("axis_major_length", "axis_minor_length", "eccentricity", "orientation")
    form = ("equivalent_diameter_area", "extent", "perimeter")
    intensity = ("intensity_mean", "intensity_min", "intensity_max", "intensity_std")
    known = ("label", "area", *box, "centroid-0", "centroid-1", *ellipse, *form, *intensity)
    assert COLUMNS[: len(known)] == known


@pytest.mark.parametrize("seed", range(4))
def test_ragged_touching_nuclei_measure_as_regionprops_does(seed: int) -> None:
    """Unequal prime sides show a swapped axis; nuclei touch each other, the border, and have holes and stray pixels."""
    labels = blobs((97, 131), 29, seed)
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    side = (labels[:, :-1] != labels[:, 1:]) & (labels[:, :-1] > 0) & (labels[:, 1:] > 0)
    assert edges.any()
    assert side.any()
    assert_like_regionprops(labels, pixels(labels.shape, seed=seed))


@pytest.mark.parametrize("shape", [(1, 13), (13, 1), (1, 1), (2, 7)], ids=str)
def test_planes_of_one_pixel_across_have_no_neighbours_beyond_the_edge(shape: tuple[int, int]) -> None:
    """In a flat view of the plane the end of a row adjoins the start of the next; a perimeter must not see across."""
    assert_like_regionprops(np.ones(shape, np.int32), pixels(shape))


def test_a_nucleus_at_both_sides_of_the_plane_does_not_wrap_around() -> None:
    """The last pixel of a row and the first of the next lie side by side in memory but not in the image."""
    labels = np.zeros((11, 17), np.int32)
    labels[2:9, :3] = labels[2:9, -3:] = 1
    found = assert_like_regionprops(labels, pixels(labels.shape))
    half = measure(np.where(np.arange(17) < 9, labels, 0), pixels(labels.shape))
    assert found["perimeter"][0] == 2 * half["perimeter"][0]


@pytest.mark.parametrize(
    "rows",
    [("...", ".1.", "..."), ("1",), ("1..2", "....", "3..4")],
    ids=["inside", "whole plane", "corners"],
)
def test_a_single_pixel_has_no_extent_and_no_eccentricity(rows: tuple[str, ...]) -> None:
    """Division by a major axis of 0 must give neither NaN nor a warning; its angle is what regionprops says."""
    labels = draw(*rows)
    found = assert_like_regionprops(labels, pixels(labels.shape))
    for name in ("axis_major_length", "axis_minor_length", "eccentricity", "perimeter", "intensity_std"):
        assert (found[name] == 0).all(), name
    np.testing.assert_array_equal(found["orientation"], -np.pi / 4)


@pytest.mark.parametrize(
    ("rows", "orientation"),
    [
        (("......", ".1111.", "......"), np.pi / 2),
        (("...", ".1.", ".1.", ".1.", ".1.", "..."), 0),
        (("1....", ".1...", "..1..", "...1.", "....1"), np.pi / 4),
        (("....1", "...1.", "..1..", ".1...", "1...."), -np.pi / 4),
        (("1...", "...1"), np.arctan2(3, 1)),
        (("...1", "1..."), np.arctan2(-3, 1)),
        ((".1.", "...", "..1"), np.arctan2(1, 2)),
        (("111", "111", "111"), -np.pi / 4),
    ],
    ids=["row", "column", "falling", "rising", "3 right, 1 down", "3 left, 1 down", "1 right, 2 down", "square"],
)
def test_orientation_is_the_angle_between_the_rows_and_the_major_axis(
    rows: tuple[str, ...], orientation: float
) -> None:
    """From -pi/2 to pi/2, counter-clockwise from the first axis, as in regionprops; signs are easily turned around."""
    labels = draw(*rows)
    reference = regionprops_table(labels, properties=("orientation",))["orientation"]
    found = measure(labels, pixels(labels.shape))["orientation"]
    np.testing.assert_allclose(found, orientation, atol=1e-7)
    np.testing.assert_allclose(found, reference, atol=1e-7)


@pytest.mark.parametrize("length", [2, 3, 7])
def test_a_line_has_a_minor_axis_of_zero_and_eccentricity_one(length: int) -> None:
    """A line has no width at all: its minor axis is not that of a rectangle one pixel wide."""
    for labels in (np.ones((1, length), int), np.ones((length, 1), int), np.eye(length, dtype=int)):
        padded = np.pad(labels, ((3, 2), (1, 4)))
        found = assert_like_regionprops(padded, pixels(padded.shape))
        assert found["axis_minor_length"][0] == pytest.approx(0, abs=1e-6)
        assert found["eccentricity"][0] == pytest.approx(1)


@pytest.mark.parametrize(("down", "right"), [(1, 4), (3, 4), (7, 4)])
def test_rounding_never_makes_a_variance_negative(down: int, right: int) -> None:
    """Three dots in line have no width; at these slopes rounding takes more than all of it, and a root fails."""
    labels = np.zeros((2 * down + 1, 2 * right + 1), np.int32)
    labels[::down, ::right] = np.eye(3)
    found = assert_like_regionprops(labels, pixels(labels.shape))
    assert found["axis_minor_length"][0] == pytest.approx(0, abs=1e-6)


def test_axes_are_those_of_the_ellipse_with_the_same_second_moments() -> None:
    """A rectangle of 7 x 11 pixels has variances (49 - 1) / 12 and (121 - 1) / 12; an axis is four roots of one."""
    labels = np.zeros((19, 23), np.int32)
    labels[5:12, 3:14] = 1
    found = {name: column[0] for name, column in measure(labels, pixels(labels.shape)).items()}
    assert found["axis_major_length"] == pytest.approx(4 * np.sqrt(10))
    assert found["axis_minor_length"] == pytest.approx(4 * np.sqrt(4))
    assert found["eccentricity"] == pytest.approx(np.sqrt(1 - 4 / 10))
    assert [found[f"bbox-{i}"] for i in range(4)] == [5, 3, 12, 14]
    assert (found["centroid-0"], found["centroid-1"]) == (8, 8)
    assert (found["area"], found["extent"]) == (77, 1)
    assert found["perimeter"] == 2 * (6 + 10)


def test_disconnected_pixels_of_one_label_are_one_nucleus() -> None:
    """Area and box span all parts; a pixel between them that has another label is neither inside nor a neighbour."""
    labels = draw("11.2.111", "1..2..1.", "...211..", "3.1..1.3", "3......3")
    found = assert_like_regionprops(labels, pixels(labels.shape))
    np.testing.assert_array_equal(found["area"], [11, 3, 4])


def test_the_perimeter_of_touching_nuclei_is_that_of_each_alone() -> None:
    """A neighbour's pixels are outside: two nuclei that share an edge each have it in their perimeter."""
    labels = np.zeros((23, 29), np.int32)
    labels[3:14, 2:13], labels[3:14, 13:27], labels[14:21, 5:20] = 1, 2, 3
    together = measure(labels, pixels(labels.shape))["perimeter"]
    alone = [measure(np.where(labels == i, i, 0), pixels(labels.shape))["perimeter"][0] for i in (1, 2, 3)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, [2 * (10 + 10), 2 * (10 + 13), 2 * (6 + 14)])


def test_labels_that_do_not_occur_have_no_row() -> None:
    """Masks edited by hand have gaps; rows keep the ids they have there, in ascending order."""
    labels = draw("9.2.", "9.22", "....", "55.7")
    found = assert_like_regionprops(labels, pixels(labels.shape))
    np.testing.assert_array_equal(found["label"], [2, 5, 7, 9])


def test_labels_below_zero_are_background() -> None:
    """Some tools mark what they could not decide with -1; regionprops passes over it, next to nuclei too."""
    labels = np.where(disks((23, 29), [(11, 13)], 7) > 0, 3, -1)
    found = assert_like_regionprops(labels, pixels(labels.shape))
    np.testing.assert_array_equal(found["label"], [3])


@pytest.mark.parametrize(("dtype", "low"), [(np.int32, 10**9), (np.int64, 10**12), (np.uint64, 2**60)])
def test_ids_far_above_the_number_of_pixels_need_no_table_of_their_size(dtype: type, low: int) -> None:
    """Other tools number nuclei with hashes; counting up to such an id would take gigabytes."""
    dense = blobs((53, 67), 11, seed=5)
    present = np.unique(dense[dense > 0])
    ids = np.zeros(dense.max() + 1, np.int64)
    ids[present] = low + 7 * np.arange(present.size)
    found, expected = measure(ids[dense].astype(dtype), pixels(dense.shape)), measure(dense, pixels(dense.shape))
    np.testing.assert_array_equal(found["label"], ids[present])
    assert found["label"].dtype == np.int64
    for name in COLUMNS[1:]:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_more_nuclei_than_sixteen_bits_can_count_stay_apart() -> None:
    """Large planes hold hundreds of thousands; here every pixel is a nucleus of its own."""
    labels = np.arange(1, 257 * 263 + 1).reshape(257, 263)
    assert labels.max() > 2**16
    intensity = pixels(labels.shape)
    found = measure(labels, intensity)
    np.testing.assert_array_equal(found["label"], labels.ravel())
    np.testing.assert_array_equal(found["area"], 1)
    np.testing.assert_array_equal(found["centroid-0"], np.indices(labels.shape)[0].ravel())
    np.testing.assert_array_equal(found["centroid-1"], np.indices(labels.shape)[1].ravel())
    np.testing.assert_array_equal(found["intensity_max"], intensity.ravel())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_labels_may_be_of_any_integer_type(dtype: type) -> None:
    """Mask stores differ in their type; a sum kept in that type would overflow at 255."""
    labels = blobs((61, 83), 13, seed=1)
    found, expected = measure(labels.astype(dtype), pixels(labels.shape)), measure(labels, pixels(labels.shape))
    assert max(expected["area"]) > 255
    for name in COLUMNS:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "rtol"),
    [
        (np.uint8, 0, 256, 1e-12),
        (np.uint16, 60_000, 65_536, 1e-12),
        (np.int32, -(2**31), 2**31, 1e-12),
        (np.float32, -3, 5, 2e-6),
        (np.float64, -3, 5, 1e-10),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_intensities_of_any_type_agree_with_regionprops(dtype: type, low: int, high: int, rtol: float) -> None:
    """uint16 near its top overflows in its own type. regionprops averages float32 in float32: only so close."""
    labels = blobs((71, 59), 17, seed=2)
    intensity = np.random.default_rng(3).uniform(low, high, labels.shape).astype(dtype)
    found, expected = measure(labels, intensity), regionprops_table(labels, intensity, properties=PROPERTIES)
    for name in INTENSITY:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=abs(high) * rtol, err_msg=name)
    np.testing.assert_array_equal(found["intensity_min"], expected["intensity_min"])
    np.testing.assert_array_equal(found["intensity_max"], expected["intensity_max"])


def test_float32_pixels_are_averaged_in_double_precision() -> None:
    """A small spread on a large offset, as camera counts have, is lost in float32 sums."""
    labels = np.ones((211, 223), np.int32)
    intensity = (30_000 + np.random.default_rng(4).normal(0, 0.5, labels.shape)).astype(np.float32)
    found = measure(labels, intensity)
    exact = intensity.astype(np.float64)
    np.testing.assert_allclose(found["intensity_mean"], exact.mean(), rtol=1e-13)
    np.testing.assert_allclose(found["intensity_std"], exact.std(), rtol=1e-11)


def test_the_background_of_an_image_does_not_matter() -> None:
    """Pixels outside every nucleus may be NaN, infinite or bright."""
    labels = blobs((47, 53), 7, seed=6)
    intensity = pixels(labels.shape, np.float64)
    spoilt = np.where(labels > 0, intensity, np.resize([np.nan, np.inf, 1e300], labels.shape))
    found, expected = measure(labels, spoilt), measure(labels, intensity)
    for name in INTENSITY:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_a_nan_pixel_spoils_its_own_nucleus_only() -> None:
    """As in regionprops; a hidden NaN would be a wrong number, a spreading one would cost the whole plane."""
    labels = draw("11.22", "11.22")
    intensity = np.arange(10.0).reshape(2, 5)
    intensity[1, 1] = np.nan
    found = measure(labels, intensity)
    for name in INTENSITY:
        np.testing.assert_array_equal(np.isnan(found[name]), [True, False], err_msg=name)


def test_a_nucleus_far_from_the_origin_measures_as_it_does_at_the_origin() -> None:
    """Sums of squares of plane coordinates lose digits to cancellation; these keep the very same bits. Places move."""
    patch = disks((31, 37), [(13, 17)], 11)
    patch[20:29, 19:36] = 1
    at_origin = measure(patch, pixels(patch.shape))
    plane, intensity = np.zeros((3001, 2003), np.int32), np.zeros((3001, 2003), np.uint8)
    plane[2963:2994, 1951:1988], intensity[2963:2994, 1951:1988] = patch, pixels(patch.shape)
    far = assert_like_regionprops(plane, intensity)
    for column in MEASURED:
        moved = 0 if column.axis is None else (2963, 1951)[column.axis]
        rtol = 0 if column.axis is None else 1e-15
        np.testing.assert_allclose(far[column.name], at_origin[column.name] + moved, rtol=rtol, err_msg=column.name)


def test_a_region_of_millions_of_pixels_does_not_overflow() -> None:
    """A plane that a failed segmentation labels as one: the square of its summed coordinates exceeds 64 bits."""
    height, width = 3001, 2003
    assert (height * width * (height - 1) // 2) ** 2 > 2**63
    found = measure(np.ones((height, width), np.int32), np.full((height, width), 7, np.uint8))
    assert found["axis_major_length"][0] == pytest.approx(4 * np.sqrt((height**2 - 1) / 12), rel=1e-12)
    assert found["axis_minor_length"][0] == pytest.approx(4 * np.sqrt((width**2 - 1) / 12), rel=1e-12)
    assert found["orientation"][0] == 0
    assert found["intensity_mean"][0] == 7


@pytest.mark.parametrize("shape", [(19, 31), (0, 0), (5, 0)], ids=str)
def test_an_image_without_nuclei_has_columns_without_rows(shape: tuple[int, int]) -> None:
    """Empty fields are common; their tables must still concatenate with others, so types must be right."""
    found = measure(np.zeros(shape, np.int32), np.zeros(shape, np.uint16))
    assert tuple(found) == COLUMNS
    for name, column in found.items():
        assert column.shape == (0,), name
        assert column.dtype == (np.int64 if name in INTEGERS else np.float64), name


def test_identifiers_and_counts_are_integers_and_all_else_is_double() -> None:
    """The type must not depend on the label image's or the pixels' own."""
    labels = blobs((41, 43), 5, seed=7).astype(np.uint8)
    for name, column in measure(labels, pixels(labels.shape, np.float32)).items():
        assert column.dtype == (np.int64 if name in INTEGERS else np.float64), name
        assert column.shape == (len(np.unique(labels)) - 1,), name


def test_views_that_are_not_contiguous_measure_as_their_copies() -> None:
    """A tile cut from a plane, or a plane whose axes were swapped, is a view with strides of its own."""
    labels, intensity = blobs((67, 73), 11, seed=8), pixels((67, 73))
    for cut in (lambda a: a.T, lambda a: a[5:50:2, 3:61], lambda a: a[::-1, ::-1]):
        found, expected = measure(cut(labels), cut(intensity)), measure(cut(labels).copy(), cut(intensity).copy())
        for name in COLUMNS:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_measuring_leaves_its_inputs_as_they_are() -> None:
    """The caller writes the same labels to the mask store afterwards."""
    labels, intensity = blobs((37, 41), 5, seed=9), pixels((37, 41))
    labels.flags.writeable = intensity.flags.writeable = False
    assert measure(labels, intensity)["label"].size > 0


@pytest.mark.parametrize(
    ("labels", "intensity"),
    [((5, 7), (7, 5)), ((5, 7), (5, 7, 3)), ((2, 5, 7), (2, 5, 7)), ((35,), (35,))],
    ids=["swapped", "colour", "stack", "flat"],
)
def test_anything_but_two_planes_of_one_shape_is_refused(labels: tuple[int, ...], intensity: tuple[int, ...]) -> None:
    """Arrays of equal size but other axes would be measured without a complaint, and wrongly."""
    planes: tuple[Any, Any] = np.ones(labels, np.int32), np.ones(intensity, np.uint8)
    with pytest.raises(ValueError, match="planes of one shape"):
        measure(*planes)


def assert_like_numpy(labels: np.ndarray, intensity: np.ndarray, support: np.ndarray | None = None) -> None:
    """All but what a root or an angle rounds, and sums of pixels that are no whole numbers, to the last bit."""
    found, expected = measure(labels, intensity, support=support), numpy_measure.measured(labels, intensity, support)
    assert list(found) == list(expected)
    rounded = {"axis_major_length", "axis_minor_length", "eccentricity", "orientation", "intensity_std"}
    if intensity.dtype.kind == "f":
        rounded |= {"intensity_mean"}
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        if name in rounded:
            np.testing.assert_allclose(found[name], values, rtol=1e-12, atol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(37, 53), (64, 64), (1, 41), (41, 1), (2, 9), (97, 8), (5, 7)], ids=str)
def test_compiled_loops_measure_as_numpy_does(shape: tuple[int, int], dtype: type) -> None:
    """With touching nuclei, gaps in their labels, labels below zero, and none at all."""
    for seed in range(4):
        labels = blobs(shape, 9, seed) * (seed % 3 + 1)
        intensity, support = pixels(shape, dtype, seed), pixels(shape, np.uint8, seed + 90)
        for one in (labels, labels - 4, labels * 0, np.where(labels > 0, labels.astype(np.int64) * 10**12, 0)):
            assert_like_numpy(one, intensity, support)
    noise = np.random.default_rng(5).integers(-1, 4, shape)
    assert_like_numpy(noise, pixels(shape, dtype))


def test_nuclei_of_the_test_images_measure_as_numpy_does(shared: Path) -> None:
    """What annotators drew, with the pixels they saw."""
    for labels, grey in annotated_images(shared, 65):
        for kind in (np.uint8, np.uint16, np.float32):
            assert_like_numpy(labels, grey.astype(kind) * kind(1 if kind == np.uint8 else 173))


def test_more_runs_than_rows_and_columns_make_room_for_themselves() -> None:
    """A chessboard of nuclei has a run for every other pixel, far more than there is room for at first."""
    rows, columns = np.indices((83, 119))
    chess = np.where((rows + columns) % 2 == 0, rows * 119 + columns + 1, 0)
    assert_like_numpy(chess, pixels(chess.shape))
    assert_like_numpy(np.where(chess > 0, 1 + columns % 5, 0), pixels(chess.shape))


def test_moments_beyond_sixty_four_bits_are_made_up_for() -> None:
    """In a plane 100 000 pixels high, squared rows of a nucleus exceed 64 bits until they are moved to its middle.

    A nucleus 100 000 pixels high and wide is measured from its runs alone: no plane of ten gigapixels is needed.
    """
    side = 100_000
    runs = np.stack([np.arange(side), np.full(side, 0), np.full(side, side), np.zeros(side, int)], axis=1)
    whole, real = shapes(runs, 1, side)
    assert sum(y * y for y in range(side)) * side > 2**64
    assert whole[:, 0].tolist() == [side**2, 0, 0, side, side]
    np.testing.assert_allclose(real[:2, 0], (side - 1) / 2, rtol=1e-15)
    np.testing.assert_allclose(real[2:4, 0], 4 * np.sqrt((side**2 - 1) / 12), rtol=1e-12)
    np.testing.assert_allclose(real[8, 0], 4 * (side - 1), rtol=1e-12)


def test_a_spread_far_below_the_mean_keeps_its_digits() -> None:
    """One pixel of a million differs by one: a difference of large squares would have no correct digit left."""
    labels, intensity = np.ones((1009, 997), np.int32), np.full((1009, 997), 60_001, np.uint16)
    for other in (60_000, 60_002):
        intensity[501, 303] = other
        share = 1 / labels.size
        assert measure(labels, intensity)["intensity_std"][0] == pytest.approx(np.sqrt(share - share**2), rel=1e-14)


def test_threads_that_measure_at_once_do_not_disturb_each_other() -> None:
    """Planes of a run are measured by several threads."""
    planes = [(blobs((67, 59), 11, seed), pixels((67, 59), np.float32, seed)) for seed in range(12)]
    alone = [measure(*plane) for plane in planes]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(5):
            for one, other in zip(threads.map(lambda plane: measure(*plane), planes), alone, strict=True):
                assert all(one[name].tobytes() == other[name].tobytes() for name in other)


def test_support_of_another_shape_is_refused() -> None:
    """Compiled loops would read beyond its end."""
    with pytest.raises(ValueError, match=r"support is \(5, 6\)"):
        measure(np.ones((5, 7), np.int32), np.ones((5, 7), np.uint8), support=np.ones((5, 6), np.uint8))
