"""What the files of label images may hold, and what is taken for nuclei: the same for `train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import disks
from PIL import Image
from scipy import ndimage

from nucseg_batch.errors import ImageError
from nucseg_batch.files.annotations import Annotation, read_label_files

LABELS = disks((101, 127), [(r, c) for r in range(13, 100, 19) for c in range(11, 120, 23)], 7).astype(np.uint16)
COUNT = int(LABELS.max())
COLOURS = np.random.default_rng(3).integers(40, 255, (256, 3)).astype(np.uint8)
COLOURS[0] = 0

Writer = Callable[[Path], None]


def tiff(pixels: np.ndarray, **options: object) -> Writer:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def picture(image: Image.Image, **options: object) -> Writer:
    return lambda path: image.save(path, **options)


def indexed(entries: np.ndarray, colours: np.ndarray = COLOURS) -> Writer:
    image = Image.fromarray(entries.astype(np.uint8), "P")
    image.putpalette(colours.ravel().tolist())
    return picture(image)


def read(folder: Path, name: str, write: Writer, **how: bool) -> Annotation:
    write(folder / name)
    return read_label_files((folder / name,), **how)


def assert_same_nuclei(found: np.ndarray) -> None:
    """The nuclei of LABELS under whatever numbers."""
    np.testing.assert_array_equal(found > 0, LABELS > 0)
    pairs = np.unique(np.stack([found[LABELS > 0], LABELS[LABELS > 0]]), axis=1)
    assert pairs.shape[1] == COUNT == found.max()


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.tif", tiff(LABELS.astype(np.float32))),
        ("a.tif", tiff(LABELS.astype(np.float64) * 3)),
        ("a.tif", tiff(LABELS.astype(np.int64) * 10**12)),
        ("a.ome.tif", tiff(LABELS, ome=True)),
        ("a.png", indexed(LABELS)),
        ("a.tif", tiff(LABELS.astype(np.uint8), photometric="palette", colormap=COLOURS.T.astype(np.uint16) * 257)),
        ("a.tif", tiff(LABELS, photometric="miniswhite")),
        ("a.gif", indexed(LABELS)),
        ("a.bmp", indexed(LABELS)),
        ("a.bmp", picture(Image.fromarray(LABELS.astype(np.uint8)))),
        ("a.webp", picture(Image.fromarray(np.stack([LABELS] * 3, 2).astype(np.uint8)), lossless=True)),
        ("a.jp2", picture(Image.fromarray(LABELS))),
    ],
    ids=[
        *("float32", "float64", "int64", "ome", "indexed PNG", "indexed TIFF", "0 is white"),
        *("indexed GIF", "indexed BMP", "BMP", "lossless WebP", "lossless JPEG 2000"),
    ],
)
def test_numbers_count_as_they_are_stored(tmp_path: Path, name: str, write: Writer) -> None:
    """Other programs write labels as floats, with a palette to look at, or with an inverting look-up table."""
    found = read(tmp_path, name, write)
    assert_same_nuclei(found.labels)
    assert not any(one.doubtful for one in found.assumptions)


def test_the_background_of_an_indexed_picture_may_be_another_entry_that_is_black(tmp_path: Path) -> None:
    """Paint programs order the entries of a palette as they like."""
    entries = (LABELS.astype(int) + 1) % (COUNT + 1)
    colours = np.zeros_like(COLOURS)
    colours[: COUNT + 1] = np.roll(COLOURS[: COUNT + 1], 1, axis=0)
    assert_same_nuclei(read(tmp_path, "a.png", indexed(entries, colours)).labels)


FEW = np.where(LABELS > 0, LABELS % 7 + 1, 0)
"""Seven classes, or colours, that nuclei share."""


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("a.tif", tiff((LABELS > 0).astype(np.uint8)), "binary mask"),
        ("a.tif", tiff((LABELS > 0) * np.uint16(65535)), "binary mask"),
        ("a.png", picture(Image.fromarray(LABELS > 0)), "binary mask"),
        ("a.tif", tiff((LABELS == 0).astype(np.uint8) * 255, photometric="miniswhite"), "binary mask"),
        ("a.png", picture(Image.fromarray(COLOURS[np.minimum(LABELS, 1)])), "binary mask"),
        ("a.png", picture(Image.fromarray(COLOURS[LABELS])), "colours"),
        ("a.png", picture(Image.fromarray(COLOURS[FEW])), "colours"),
    ],
    ids=["0 and 1", "0 and 65535", "one bit", "0 is white", "one colour", "a colour each", "shared colours"],
)
def test_pieces_of_masks_and_colours_are_numbered_with_a_doubt(
    tmp_path: Path, name: str, write: Writer, said: str
) -> None:
    """Taken as they are, they would be one nucleus an image, or none."""
    found = read(tmp_path, name, write)
    assert_same_nuclei(found.labels)
    (doubt,) = found.assumptions
    assert doubt.doubtful
    assert said in doubt.what


def test_a_binary_mask_is_no_doubt_where_only_the_foreground_counts(tmp_path: Path) -> None:
    """`--task semantic` wants such masks, also of dense tissue."""
    found = read(tmp_path, "a.tif", tiff((LABELS > 0).astype(np.uint8)), semantic=True)
    assert found.assumptions == ()
    dense = read(tmp_path, "a.tif", tiff((LABELS == 0).astype(np.uint8)), semantic=True)
    assert (dense.labels > 0).sum() == (LABELS == 0).sum()


@pytest.mark.parametrize(
    ("labels", "said"),
    [(FEW, "several separate components"), (LABELS % 17, "several separate components")],
    ids=["classes", "numbers that wrap"],
)
def test_numbers_in_several_pieces_are_kept_with_a_doubt(tmp_path: Path, labels: np.ndarray, said: str) -> None:
    """A nucleus may be cut in two, but not all of them."""
    found = read(tmp_path, "a.tif", tiff(labels.astype(np.uint8)))
    assert found.labels.max() == np.unique(labels[labels > 0]).size
    assert [(one.doubtful, said in one.evidence) for one in found.assumptions] == [(True, True)]
    torn = LABELS.copy()
    torn[torn == 5] = 9
    assert read(tmp_path, "a.tif", tiff(torn)).assumptions == ()


def test_more_nuclei_than_eight_bits_can_number_are_noticed(tmp_path: Path) -> None:
    """The 256th has the number 0, and the 257th that of the first."""
    many = disks((211, 223), [(r, c) for r in range(5, 205, 12) for c in range(6, 217, 14)], 3)
    assert 257 < many.max() < 280, "so few wrap that their number alone raises no doubt"
    stored = many.astype(np.uint8)
    (doubt,) = read(tmp_path, "a.tif", tiff(stored)).assumptions
    assert (doubt.doubtful, doubt.option) == (True, "store the labels with more bits")
    assert read(tmp_path, "a.tif", tiff(many.astype(np.uint16))).assumptions == ()


def enlarged(labels: np.ndarray, order: int) -> np.ndarray:
    return ndimage.zoom(labels.astype(float), 1.7, order=order).clip(0).round().astype(np.uint16)


EDGES = (ndimage.maximum_filter(LABELS, 3) != LABELS) | (ndimage.minimum_filter(LABELS, 3) != LABELS)
LINES = np.where((LABELS == 0) & (ndimage.maximum_filter(LABELS, 3) > 0), 0, LABELS + 1)
REFUSED = {
    "bilinear": (tiff(enlarged(LABELS, 1)), "interpolation"),
    "cubic, far numbers": (tiff(enlarged(LABELS * 900, 3)), "interpolation"),
    "blurred mask": (tiff(ndimage.gaussian_filter((LABELS > 0) * 255.0, 1).astype(np.uint8)), "interpolation"),
    "intensities": (tiff(np.random.default_rng(1).normal(300, 9, LABELS.shape).astype(np.uint16)), "intensities"),
    "fractions": (tiff(LABELS.astype(np.float32) / 255), "fractions"),
    "negative": (tiff(LABELS.astype(np.int16) - 1), "int16 from -1"),
    "beyond single precision": (tiff(LABELS.astype(np.float64) * 2**22), "not exact"),
    "JPEG in a TIFF": (tiff(LABELS.astype(np.uint8), compression="jpeg"), "JPEG"),
    "stack": (tiff(np.stack([LABELS] * 3), photometric="minisblack", metadata={"axes": "ZYX"}), "stack"),
    "pages": (tiff(np.stack([LABELS] * 3), photometric="minisblack"), "save the plane that is meant as an image"),
    "inverted mask": (tiff((LABELS == 0).astype(np.uint8) * 255), "255 covers 7.%"),
    "background 255": (tiff(np.where(LABELS > 0, LABELS, 255)), "255 covers"),
    "background not a number": (tiff(np.where(LABELS > 0, LABELS, np.nan).astype(np.float32)), "background"),
    "background 1, nuclei 2": (tiff((LABELS > 0).astype(np.uint8) + 1), "1 covers"),
    "watershed lines": (tiff(LINES.astype(np.uint16)), "1 covers"),
    "all one": (tiff(np.ones_like(LABELS)), "1 covers 100%"),
    "outlines, 0 and 255": (tiff(EDGES * np.uint8(255)), "outlines"),
    "outlines, numbered": (tiff(np.where(EDGES, LABELS, 0)), "less than 3 pixels wide"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_labels_is_refused_with_its_name(tmp_path: Path, kind: str) -> None:
    """Each of these was a score near 0, or a model that learnt nonsense."""
    write, said = REFUSED[kind]
    with pytest.raises(ImageError, match=rf"^a\.tif.*{said}"):
        read(tmp_path, "a.tif", write)


def test_lossy_and_colour_pictures_are_refused_whatever_their_suffix(tmp_path: Path) -> None:
    """The kind of a file is told by its first bytes; a JPEG saved again as PNG by its pixels."""
    with pytest.raises(ImageError, match="JPEG is lossy"):
        read(tmp_path, "a.png", picture(Image.fromarray(LABELS.astype(np.uint8)), format="JPEG"))
    with pytest.raises(ImageError, match="WebP is lossy"):
        read(tmp_path, "a.webp", picture(Image.fromarray(np.stack([LABELS] * 3, 2).astype(np.uint8)), quality=80))
    with Image.open(tmp_path / "a.png") as lossy, pytest.raises(ImageError, match="interpolation or lossy"):
        read(tmp_path, "b.png", picture(lossy, format="PNG"))
    on_white = np.where(LABELS[..., None] > 0, COLOURS[LABELS], 255).astype(np.uint8)
    with pytest.raises(ImageError, match=r"\(255, 255, 255\) covers"):
        read(tmp_path, "a.png", picture(Image.fromarray(on_white)))
    noise = np.random.default_rng(1).integers(0, 255, (31, 41, 3)).astype(np.uint8)
    with pytest.raises(ImageError, match="colour image"):
        read(tmp_path, "a.png", picture(Image.fromarray(noise)))


def test_a_bad_prediction_is_scored_with_a_doubt_but_intensities_are_not(tmp_path: Path) -> None:
    """A method that finds one nucleus everywhere has earned its score; a picture in place of masks is a mistake."""
    everything = read(tmp_path, "a.tif", tiff(np.ones_like(LABELS)), prediction=True)
    assert everything.labels.min() == 1
    specks = np.zeros((40, 40), np.uint16)
    specks[::4, ::4] = np.arange(1, 101).reshape(10, 10)
    assert read(tmp_path, "a.tif", tiff(specks), prediction=True).labels.max() == 100
    assert all(one.doubtful for one in everything.assumptions)
    assert len(everything.assumptions) == 1
    for kind in ("intensities", "bilinear", "fractions", "stack"):
        with pytest.raises(ImageError):
            read(tmp_path, "a.tif", REFUSED[kind][0], prediction=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_empty_label_images_and_single_nuclei_raise_no_doubt(tmp_path: Path, dtype: type) -> None:
    """An empty field is annotation, too."""
    for labels in (LABELS * 0, np.where(LABELS == 3, 200, 0)):
        found = read(tmp_path, "a.tif", tiff(labels.astype(dtype)))
        np.testing.assert_array_equal(found.labels, labels > 0)
        assert found.assumptions == ()


def test_pictures_of_single_nuclei_hold_one_nucleus_each(tmp_path: Path) -> None:
    """Label images in a folder called masks/ must not be laid over each other as one image's nuclei."""
    paths = [tmp_path / f"{name}.tif" for name in "ab"]
    for path in paths:
        tifffile.imwrite(path, LABELS)
    with pytest.raises(ImageError, match=r"a\.tif has values from 0 to \d+; the mask of a single nucleus"):
        read_label_files(tuple(paths))
    tifffile.imwrite(paths[0], (LABELS != 4).astype(np.uint8) * 255)
    with pytest.raises(ImageError, match=r"a\.tif: 255 covers most of its border"):
        read_label_files((paths[0],), pictures=True)
    tifffile.imwrite(paths[0], np.isin(LABELS, (4, 6)).astype(np.uint8))
    assert read_label_files((paths[0],), pictures=True).labels.max() == 1, "one nucleus, in two pieces"
