from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nucseg_batch.errors import InputMissingError, OutputError, StorageError, UsageError
from nucseg_batch.files import sample
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.images import read_image
from nucseg_batch.files.sample import FIELDS, HISTOLOGY, Field, simulate_field, truth_folder, write_sample

FIELD_IDS = [Path(field.name).stem for field in FIELDS]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one sample; no test changes it."""
    folder = tmp_path_factory.mktemp("sample") / "images"
    write_sample(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def pixels_of(folder: Path, field: Field) -> NDArray[np.float64]:
    return read_image(folder / field.name, max_pixels=10**6).astype(np.float64)


def truth_of(folder: Path, field: Field) -> NDArray[np.integer]:
    return read_image((truth_folder(folder) / field.name).with_suffix(".tif"), max_pixels=10**6)


def field_of(
    seed: int, shape: tuple[int, int] = (127, 163), count: int = 11
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    return simulate_field(shape, diameter=19, count=count, rng=np.random.default_rng(seed))


def test_the_files_named_are_those_that_segment_will_find(written: Path, tmp_path: Path) -> None:
    """Nothing else may lie among the images: no truth, no file half written."""
    paths = write_sample(tmp_path / "images")
    assert paths == sorted(tmp_path / "images" / name for name in [*(field.name for field in FIELDS), HISTOLOGY])
    assert [entry.key for entry in discover(str(written)).entries] == sorted(contents(written))
    assert sorted(contents(written)) == [path.relative_to(tmp_path / "images").as_posix() for path in paths]
    assert discover(str(written)).skipped == {}


def test_truth_lies_beside_the_images_under_their_names(written: Path) -> None:
    """`evaluate` pairs files by path without suffix."""
    truth = truth_folder(written)
    assert truth == written.parent / "images_truth"
    assert sorted(contents(truth)) == sorted(Path(field.name).with_suffix(".tif").as_posix() for field in FIELDS)


def test_one_seed_gives_the_same_bytes_and_another_gives_others(written: Path, tmp_path: Path) -> None:
    """Scores on the sample can only be compared where it is the same; the histology image is real and has no seed."""
    write_sample(tmp_path / "again", seed=1)
    write_sample(tmp_path / "other", seed=2)
    assert contents(tmp_path / "again") == contents(written)
    assert contents(tmp_path / "again_truth") == contents(truth_folder(written))
    other, other_truth = contents(tmp_path / "other"), contents(tmp_path / "other_truth")
    same = {name for name, content in contents(written).items() if other[name] == content}
    assert same == {HISTOLOGY}
    assert not any(other_truth[name] == content for name, content in contents(truth_folder(written)).items())


@pytest.mark.parametrize("field", FIELDS, ids=FIELD_IDS)
def test_an_image_reads_as_its_field_says_and_has_truth_of_its_shape(written: Path, field: Field) -> None:
    """Sixteen bits that became eight, swapped axes or lost channels would make the sample test nothing."""
    pixels = read_image(written / field.name, max_pixels=10**6)
    assert pixels.shape == ((*field.shape, 3) if field.rgb else field.shape)
    assert pixels.dtype == field.dtype
    assert truth_of(written, field).shape == field.shape
    if field.rgb:
        assert (pixels == pixels[:, :, :1]).all()


@pytest.mark.parametrize("field", FIELDS, ids=FIELD_IDS)
def test_values_use_the_range_of_the_field(written: Path, field: Field) -> None:
    """None wraps below no light or above saturation, and nuclei are not lost in one corner of the range."""
    pixels = pixels_of(written, field)
    if not field.name.endswith(".jpg"):  # JPEG oversteps by a few values
        assert field.low <= pixels.min() < pixels.max() <= field.high
    assert (pixels >= field.high).mean() < 0.002
    assert np.percentile(pixels, 99.5) > field.low + 0.25 * (field.high - field.low)


@pytest.mark.parametrize("field", FIELDS, ids=FIELD_IDS)
def test_truth_is_numbered_without_gaps_and_each_nucleus_is_one_piece(written: Path, field: Field) -> None:
    """An instance in two pieces could not be found as one, and a gap in numbers would miscount."""
    labels = truth_of(written, field)
    assert labels.dtype == np.uint16
    assert np.unique(labels).tolist() == list(range(field.count + 1))
    for number in range(1, field.count + 1):
        assert ndimage.label(labels == number)[1] == 1, f"nucleus {number}"


@pytest.mark.parametrize("field", FIELDS, ids=FIELD_IDS)
def test_nuclei_have_about_the_diameter_of_their_field(written: Path, field: Field) -> None:
    """Those cut by the border and by neighbours are smaller, so the largest half is measured."""
    areas = np.sort(np.bincount(truth_of(written, field).ravel())[1:])
    diameter = 2 * np.sqrt(areas[areas.size // 2 :].mean() / np.pi)
    assert 0.9 * field.diameter < diameter < 1.25 * field.diameter
    assert areas[0] > 0.15 * np.pi / 4 * field.diameter**2, "no slivers"


@pytest.mark.parametrize("field", FIELDS, ids=FIELD_IDS)
def test_every_nucleus_is_brighter_than_the_background_around_it(written: Path, field: Field) -> None:
    """Truth that is shifted, transposed or invisible would show here; dim nuclei must still be seen."""
    pixels, labels = pixels_of(written, field), truth_of(written, field)
    grey = pixels[:, :, 0] if field.rgb else pixels
    for number in range(1, field.count + 1):
        nucleus = labels == number
        around = ndimage.binary_dilation(nucleus, iterations=9) & ~ndimage.binary_dilation(labels > 0, iterations=4)
        if around.any():
            assert grey[nucleus].mean() > 1.3 * grey[around].mean() - 0.3 * field.low, f"nucleus {number}"


def test_some_nuclei_touch_and_some_are_dim(written: Path) -> None:
    """A sample of lone bright disks would flatter any model."""
    touching, dim = 0, 0
    for field in FIELDS:
        pixels, labels = pixels_of(written, field), truth_of(written, field)
        grey = pixels[:, :, 0] if field.rgb else pixels
        for a, b in ((labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])):
            touching += np.unique(np.stack([a, b])[:, (a != b) & (a > 0) & (b > 0)], axis=1).shape[1]
        light = ndimage.mean(grey, labels, np.arange(1, field.count + 1)) - field.low
        dim += int((light < 0.5 * np.median(light)).sum())
    nuclei = sum(field.count for field in FIELDS)
    assert touching > 0.1 * nuclei
    assert 0.04 * nuclei < dim < 0.25 * nuclei


def test_the_fields_differ_in_what_a_reader_must_cope_with() -> None:
    """Shapes with unequal sides, both bit depths in both lossless files, one JPEG, one colour file."""
    kinds = {(Path(field.name).suffix, field.dtype, field.rgb) for field in FIELDS}
    assert kinds == {
        (".png", "uint8", False),
        (".png", "uint8", True),
        (".png", "uint16", False),
        (".tif", "uint8", False),
        (".tif", "uint16", False),
        (".jpg", "uint8", False),
    }
    assert len({field.shape for field in FIELDS if field.shape[0] != field.shape[1]}) >= 4
    assert len({field.diameter for field in FIELDS}) == len(FIELDS)


def test_the_jpeg_is_of_high_quality(written: Path) -> None:
    """Steps of a coarser quantisation would hide dim nuclei: 95 divides the usual table, up to 121, by ten."""
    (name,) = (field.name for field in FIELDS if field.name.endswith(".jpg"))
    with Image.open(written / name, formats=("JPEG",)) as image:
        tables = image.quantization  # type: ignore[attr-defined]  # of JPEG files only
    assert max(tables[0]) == 12


@pytest.mark.filterwarnings("default")  # what scikit-image's own loader warns of is not ours
def test_the_histology_image_is_the_one_that_scikit_image_carries(written: Path) -> None:
    """It is real, so not one pixel may change on the way."""
    from skimage.data import immunohistochemistry

    np.testing.assert_array_equal(read_image(written / HISTOLOGY, max_pixels=10**6), immunohistochemistry())


def test_nothing_is_looked_up_on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute nodes often have none, and a first try must not hang there."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert (tmp_path / "a" / HISTOLOGY) in write_sample(tmp_path / "a")


def test_scikit_image_without_its_picture_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some distributions strip data out of packages."""
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(InputMissingError, match=r"ihc\.png .* install scikit-image from its wheel"):
        write_sample(tmp_path / "images")
    assert list(tmp_path.iterdir()) == []


def file_in_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")


def folder_in_folder(folder: Path) -> None:
    (folder / "mine").mkdir(parents=True)


def hidden_file_in_truth(folder: Path) -> None:
    truth_folder(folder).mkdir()
    (truth_folder(folder) / ".mine").write_text("mine")


def file_for_folder(folder: Path) -> None:
    folder.write_text("mine")


def file_for_truth(folder: Path) -> None:
    truth_folder(folder).write_text("mine")


def file_for_parent(folder: Path) -> None:
    folder.parent.write_text("mine")


@pytest.mark.parametrize(
    ("prepare", "name", "words"),
    [
        (file_in_folder, "images", r"images: it must be new or empty, but holds mine\.txt;"),
        (folder_in_folder, "images", r"images: it must be new or empty, but holds mine;"),
        (hidden_file_in_truth, "images", r"images_truth: it must be new or empty, but holds \.mine;"),
        (file_for_folder, "images", r"images: a file is in the way;"),
        (file_for_truth, "images", r"images_truth: a file is in the way;"),
        (file_for_parent, "above/images", r"images: a file is in the way;"),
    ],
    ids=["file", "folder", "hidden-file-in-truth", "is-a-file", "truth-is-a-file", "parent-is-a-file"],
)
def test_a_place_in_use_is_refused_and_left_untouched(
    tmp_path: Path, prepare: Callable[[Path], None], name: str, words: str
) -> None:
    """What lies there is the user's, and would be segmented with the sample."""
    prepare(tmp_path / name)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))]
    with pytest.raises(OutputError, match=words + " give the name of a new folder"):
        write_sample(tmp_path / name)
    assert [(path, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))] == before


def test_a_second_sample_in_one_folder_is_refused(written: Path) -> None:
    """It would mix seeds; the message says how much lies there."""
    before = contents(written)
    with pytest.raises(OutputError, match="holds fluorescence and 1 more"):
        write_sample(written, seed=2)
    assert contents(written) == before


def test_empty_folders_are_used_and_missing_parents_made(tmp_path: Path) -> None:
    """Users make folders before they call."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images_truth").mkdir()
    assert all(path.is_file() for path in write_sample(tmp_path / "images"))
    assert all(path.is_file() for path in write_sample(tmp_path / "new" / "deep" / "images"))


def test_the_working_folder_has_its_truth_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nucseg-batch sample .` names a folder without saying its name."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert truth_folder(Path(".")) == tmp_path / "here_truth"
    assert truth_folder(Path("..")) == tmp_path.with_name(f"{tmp_path.name}_truth")
    assert truth_folder(Path("images/")) == Path("images_truth")


def test_a_link_that_leads_nowhere_cannot_be_made_a_folder(tmp_path: Path) -> None:
    """It looks as if nothing were there."""
    (tmp_path / "images").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="images: it cannot be made"):
        write_sample(tmp_path / "images")
    assert not (tmp_path / "images_truth").exists()


def test_a_full_disk_is_told_as_such_and_leaves_no_half_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truncated image would later look like a fault of the reader."""
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if "field_03.png" in path.name:
            whole(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match=r"field_03\.png cannot be written \(No space left on device\); make room"):
        write_sample(tmp_path / "images")
    for entry in discover(str(tmp_path / "images")).entries:
        read_image(tmp_path / "images" / entry.key, max_pixels=10**6)
    assert "fluorescence/field_03.png" not in [entry.key for entry in discover(str(tmp_path / "images")).entries]


def test_a_negative_seed_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Numpy's own words for it name nothing that the user typed."""
    with pytest.raises(UsageError, match="--seed must be 0 or more, but is -3"):
        write_sample(tmp_path / "images", seed=-3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [0, 3, 11, 2**40])
def test_a_field_has_exactly_the_nuclei_asked_for(seed: int) -> None:
    """Whatever the seed: count, types, range and axes."""
    image, labels = field_of(seed)
    assert (image.shape, labels.shape) == ((127, 163), (127, 163))
    assert image.dtype == np.float32
    assert labels.dtype == np.int32
    assert np.unique(labels).tolist() == list(range(12))
    assert 0 <= image.min() < image.max() <= 1
    assert image[labels > 0].mean() > 2.5 * image[labels == 0].mean()


@pytest.mark.parametrize("field", FIELDS, ids=FIELD_IDS)
def test_the_sample_leaves_room_for_any_seed(field: Field) -> None:
    """A seed that finds no room would be an error no user can understand: twice the nuclei must still fit."""
    rng = np.random.default_rng(5)
    _, labels = simulate_field(field.shape, diameter=field.diameter, count=2 * field.count, rng=rng)
    assert labels.max() == 2 * field.count
    for number in range(1, 2 * field.count + 1):
        assert ndimage.label(labels == number)[1] == 1, f"nucleus {number}, though neighbours cut parts off"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_nucleus_takes_no_pixel_from_another(seed: int) -> None:
    """They do not overlap: adding nuclei to a crowd leaves those before them as they were."""
    _, fewer = field_of(seed, count=25)
    _, more = field_of(seed, count=35)
    np.testing.assert_array_equal(np.where(more <= 25, more, 0), fewer)


def test_a_field_without_nuclei_is_dark_noise() -> None:
    """Nothing to find is a case of its own, and must not be stretched to full brightness."""
    image, labels = field_of(7, count=0)
    assert not labels.any()
    assert image.max() < 0.15
    assert image.std() > 0.002


def test_what_a_neighbour_cuts_off_is_not_part_of_a_nucleus() -> None:
    """Too rare to wait for a seed that shows it: a nucleus of radius 12 beside a thin one 5 columns away."""
    labels, thickness = np.zeros((41, 53), np.int32), np.zeros((41, 53))
    labels[:, 30:32] = 1
    disk = sample._Outline(radius=12, stretch=1, angle=0, bends=np.zeros((0, 2)))
    sample._paint(labels, thickness, 2, (20, 25), disk)
    assert (labels[:, 30:32] == 1).all()
    assert not labels[:, 32:].any()
    assert np.argwhere(labels == 2).min(0).tolist() == [9, 14]
    assert ((thickness > 0) == (labels == 2)).all()


def test_outlines_are_no_ellipses() -> None:
    """Perfect ellipses are easier than nuclei: they would differ by 1 % from that of the same centre and moments."""
    differences, ratios = [], []
    for seed in range(8):
        _, labels = simulate_field((301, 307), diameter=80, count=1, rng=np.random.default_rng(seed))
        points = np.argwhere(labels)
        if points.min() == 0 or (points.max(0) == [300, 306]).any():
            continue  # cut by the border
        spread = np.cov(points.T)
        away = np.indices(labels.shape).reshape(2, -1).T - points.mean(0)
        ellipse = ((away @ np.linalg.inv(spread)) * away).sum(1).reshape(labels.shape) <= 4
        differences.append((ellipse ^ (labels > 0)).sum() / len(points))
        short, long = np.sqrt(np.linalg.eigvalsh(spread))
        ratios.append(long / short)
    assert len(differences) >= 3
    assert 0.025 < np.mean(differences) < 0.2
    assert max(ratios) > 1.25


def test_what_finds_no_room_is_refused_with_the_numbers() -> None:
    """Fewer nuclei than asked for would be found out only when scores are read."""
    with pytest.raises(ValueError, match=r"50 nuclei of diameter 19 must fit into \(41, 37\) pixels, but after \d+ "):
        field_of(0, (41, 37), 50)


def test_nuclei_of_a_few_pixels_are_refused() -> None:
    """They would have no shape, and none at all with diameter 0."""
    with pytest.raises(ValueError, match=r"diameter must be 4 pixels or more, but is 3\.9"):
        simulate_field((41, 37), diameter=3.9, count=1, rng=np.random.default_rng(0))
