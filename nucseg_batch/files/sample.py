"""Writes a small data set for a first try: simulated fluorescence fields with known truth, and a real histology image.

Nothing is downloaded, so that a first run and the tests work on a node without network: the fields are made from a seed
and the histology image lies in the wheel of scikit-image. The fields differ in shape, size of nuclei, bit depth and
file type, as a real collection does. Truth is written beside the images and not among them, because `segment` takes
everything below its input folder for an image.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from nucseg_batch.errors import InputMissingError, OutputError, StorageError, UsageError

HISTOLOGY = "histology/immunohistochemistry.png"
"""Where the histology image is written, below the folder."""
NUCLEI, DIFFERENT = 30, 16
"""Of fields for timing: nuclei in 256 x 256 pixels, and different pictures."""
TOUCHING = 0.35
"""Share of nuclei that are put against another one."""
DIM = 0.12
"""Share of nuclei that are far less bright than the others."""
MIN_DIAMETER = 4
"""Pixels below which an outline is only a few pixels and no longer a shape."""
GRID = 2
"""Centres of nuclei lie on every GRID-th row and column, as searching all pixels for room would take far longer."""


@dataclass(frozen=True)
class Field:
    """One simulated field, and the file it becomes."""

    name: str
    """Path below the folder; the suffix chooses the file type."""
    shape: tuple[int, int]
    """Rows and columns."""
    diameter: float
    """Mean diameter of its nuclei, in pixels."""
    count: int
    """Nuclei."""
    dtype: str
    """Type of its pixels."""
    low: int
    """Pixel value of no light."""
    high: int
    """Pixel value at which the camera is saturated."""
    rgb: bool = False
    """Whether the grey values are repeated in three channels, as many viewers export them."""


FIELDS: tuple[Field, ...] = (
    Field("fluorescence/field_01.tif", (256, 256), 21, 30, "uint16", 300, 6000),
    Field("fluorescence/field_02.png", (256, 320), 17, 46, "uint8", 0, 160),
    Field("fluorescence/field_03.png", (360, 360), 30, 34, "uint16", 180, 2900),
    Field("fluorescence/field_04.jpg", (260, 347), 25, 32, "uint8", 4, 255),
    Field("fluorescence/field_05.png", (256, 256), 19, 23, "uint8", 2, 90, rgb=True),
    Field("fluorescence/field_06.tif", (320, 256), 34, 15, "uint16", 1000, 40000),
    Field("fluorescence/field_07.tif", (311, 401), 23, 58, "uint8", 8, 230),
    Field("fluorescence/field_08.png", (283, 360), 40, 13, "uint8", 10, 200),
)
"""The fields that `write_sample` makes; together they cover what the reader must cope with."""


@dataclass(frozen=True)
class _Outline:
    """Border of one nucleus around its centre: an ellipse whose radius is bent by a few harmonics."""

    radius: float
    """Radius of the disc of (about) the same area, in pixels."""
    stretch: float
    """Root of the long by the short axis."""
    angle: float
    """Direction of the long axis, in radians."""
    bends: NDArray[np.float64]
    """Amplitude as a share of the radius, and phase in radians, of the harmonics 2, 3, ...: (harmonics, 2)."""

    @property
    def reach(self) -> int:
        """Pixels from the centre beyond which the nucleus cannot lie."""
        return int(np.ceil(self.radius * self.stretch * (1 + np.abs(self.bends[:, 0]).sum())))

    def relative_radius(self, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of points from the centre over that of the border in their direction: below 1 inside."""
        theta = np.arctan2(y, x) - self.angle
        border = self.radius / np.hypot(np.cos(theta) / self.stretch, np.sin(theta) * self.stretch)
        for harmonic, (amplitude, phase) in enumerate(self.bends, start=2):
            border *= 1 + amplitude * np.cos(harmonic * theta + phase)
        return np.asarray(np.hypot(y, x) / border)


def simulate_field(
    shape: tuple[int, int], *, diameter: float, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Simulates nuclei under a fluorescence microscope: the image, 0..1 float32, and its labels 1..count int32.

    Both are (height, width). Nuclei may touch and are cut by the image's border, but do not overlap; each is one piece.
    `diameter` is their mean, in pixels. Raises ValueError where it is below MIN_DIAMETER or nuclei find no room.
    """
    if diameter < MIN_DIAMETER:
        raise ValueError(f"diameter must be {MIN_DIAMETER} pixels or more, but is {diameter}; ask for larger nuclei.")
    labels = np.zeros(shape, np.int32)
    thickness = np.zeros(shape)
    for number in range(1, count + 1):
        outline = _random_outline(diameter, rng)
        centre = _free_place(labels, outline.radius, rng)
        if centre is None:
            raise ValueError(
                f"{count} nuclei of diameter {diameter} must fit into {shape} pixels, but after {number - 1} there is "
                "no room; ask for fewer or smaller nuclei, or for a larger shape."
            )
        _paint(labels, thickness, number, centre, outline)
    return _exposed(_emitted(labels, thickness, diameter, rng), diameter, rng), labels


def _random_outline(diameter: float, rng: np.random.Generator) -> _Outline:
    harmonics = np.arange(2, 6)
    bends = np.stack([rng.normal(0, 0.09 / harmonics), rng.uniform(0, 2 * np.pi, harmonics.size)], axis=1)
    return _Outline(
        radius=diameter / 2 * float(np.exp(np.clip(rng.normal(0, 0.12), -0.3, 0.3))),
        stretch=float(np.sqrt(rng.uniform(1.0, 1.7))),
        angle=float(rng.uniform(0, np.pi)),
        bends=bends,
    )


def _free_place(labels: NDArray[np.int32], radius: float, rng: np.random.Generator) -> tuple[int, int] | None:
    """A random centre for a nucleus, against or away from the others; None where there is no room left."""
    free = labels[::GRID, ::GRID] == 0
    alone = free.all()  # the distance to nothing is not defined
    clearance = np.full(free.shape, np.inf) if alone else ndimage.distance_transform_edt(free) * GRID
    least, touching = 0.8 * radius, 1.05 * radius
    if rng.random() < TOUCHING:
        wishes = [(clearance >= least) & (clearance <= touching), clearance >= least]
    else:
        wishes = [clearance > 1.5 * radius, clearance >= least]
    for wish in wishes:
        places = np.flatnonzero(wish)
        if places.size:
            row, column = np.unravel_index(rng.choice(places), free.shape)
            return int(row) * GRID, int(column) * GRID
    return None


def _paint(
    labels: NDArray[np.int32],
    thickness: NDArray[np.float64],
    number: int,
    centre: tuple[int, int],
    outline: _Outline,
) -> None:
    """Adds a nucleus to both arrays, in place, where no other one lies."""
    first = [max(place - outline.reach, 0) for place in centre]
    window = tuple(slice(start, place + outline.reach + 1) for start, place in zip(first, centre, strict=True))
    height, width = labels[window].shape
    row, column = centre[0] - first[0], centre[1] - first[1]
    y, x = np.ogrid[-row : height - row, -column : width - column]
    rho = outline.relative_radius(y.astype(np.float64), x.astype(np.float64))
    pieces, _ = ndimage.label((rho < 1) & (labels[window] == 0))
    inside = pieces == pieces[row, column]  # what a neighbour cuts off is not part of the nucleus
    labels[window][inside] = number
    thickness[window][inside] = np.sqrt(1 - 0.8 * rho[inside] ** 2)


def _emitted(
    labels: NDArray[np.int32], thickness: NDArray[np.float64], diameter: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Light that leaves the nuclei, about 1 where one is thickest: its own brightness, and clumps of chromatin."""
    count = int(labels.max(initial=0))
    brightness = np.clip(rng.lognormal(0, 0.25, count + 1), 0.6, 1.8)
    brightness[rng.random(count + 1) < DIM] = 0.3
    fine, coarse = _smooth_noise(labels.shape, diameter / 14, rng), _smooth_noise(labels.shape, diameter / 5, rng)
    chromatin = np.maximum(1 + 0.25 * fine + 0.12 * coarse, 0.3)
    return np.asarray(brightness[labels] * thickness * chromatin)


def _exposed(light: NDArray[np.float64], diameter: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """What the camera makes of the light: focus, haze, uneven illumination, shot and read noise; 0..1."""
    sharp = ndimage.gaussian_filter(light, rng.uniform(0.8, 1.4))
    haze = rng.uniform(0.02, 0.06) * (1 + 0.3 * _smooth_noise(light.shape, 2 * diameter, rng))
    haze += rng.uniform(0.05, 0.15) * ndimage.gaussian_filter(light, 0.6 * diameter)
    y, x = (np.linspace(-1, 1, length) for length in light.shape)
    middle = rng.uniform(-0.5, 0.5, 2)
    illumination = 1 - 0.15 * ((y[:, None] - middle[0]) ** 2 + (x - middle[1]) ** 2)
    expected = 0.45 * np.maximum(sharp + haze, 0) * illumination
    photons = rng.uniform(200, 900)
    image = rng.poisson(expected * photons) / photons + rng.normal(0, 0.005, light.shape)
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise that is smooth over `sigma` pixels, with a standard deviation of about 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma)
    return np.asarray(noise * 2 * np.sqrt(np.pi) * sigma)


def truth_folder(folder: Path) -> Path:
    """Where the truth of a sample lies: beside its folder, which would itself be segmented with all it holds."""
    if folder.name in ("", ".."):  # "." and "a/.." have no name of their own
        folder = folder.resolve()
    return folder.with_name(f"{folder.name}_truth")


def write_sample(folder: Path, *, seed: int = 1) -> list[Path]:
    """Writes the sample and returns its image files, sorted; the label images (uint16 TIFF) are in `truth_folder`.

    Label images have the names of their images with suffix .tif; the histology image has none. The same seed gives the
    same bytes. Raises OutputError where one of the folders exists and is not an empty folder, or cannot be made, before
    anything is written; UsageError for a negative seed, StorageError where the disk fails.
    """
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, but is {seed}; leave it out for the usual sample.")
    truth = truth_folder(folder)
    for place in (folder, truth):
        _refuse_used(place)
    images, truths = _encoded(seed)
    for place in (folder, truth):
        _make_folder(place)
    _write(truth, truths)
    return sorted(_write(folder, images))


def write_fields(folder: Path, count: int, side: int, diameter: float, *, seed: int = 1) -> Path:
    """Writes simulated 8-bit fields as PNG, for timing: `count` files, of which every DIFFERENT-th is the same picture.

    Each is `side` pixels high and wide, with NUCLEI in 256 x 256 pixels, `diameter` pixels wide. Returns the folder,
    which is made.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    nuclei = max(1, round(NUCLEI * side**2 / 256**2))
    fields = []
    for _ in range(min(count, DIFFERENT)):
        image, _ = simulate_field((side, side), diameter=diameter, count=nuclei, rng=rng)
        fields.append(_png(np.rint(20 + image * 220).astype(np.uint8)))
    for number in range(count):
        (folder / f"{number:06d}.png").write_bytes(fields[number % len(fields)])
    return folder


def _refuse_used(folder: Path) -> None:
    try:
        held = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise OutputError(f"FOLDER {folder}: a file is in the way; give the name of a new folder.") from error
    except OSError as error:
        raise OutputError(
            f"FOLDER {folder}: it cannot be read ({error.strerror}); give the name of a new folder."
        ) from error
    if held:
        raise OutputError(
            f"FOLDER {folder}: it must be new or empty, but holds {held[0]}"
            f"{f' and {len(held) - 1} more' if held[1:] else ''}; give the name of a new folder."
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"FOLDER {folder}: it cannot be made ({error.strerror}); give a place where you may write."
        ) from error


def _encoded(seed: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Bytes of the images and of the label images, by path below their folders."""
    images, truths = {HISTOLOGY: _histology()}, {}
    for number, field in enumerate(FIELDS):
        rng = np.random.default_rng([seed, number])  # a field does not change when another one does
        image, labels = simulate_field(field.shape, diameter=field.diameter, count=field.count, rng=rng)
        pixels = np.rint(field.low + image * (field.high - field.low)).astype(field.dtype)
        if field.rgb:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        name = PurePosixPath(field.name)
        images[field.name] = ENCODERS[name.suffix](pixels)
        truths[str(name.with_suffix(".tif"))] = _tiff(labels.astype(np.uint16))
    return images, truths


def _histology() -> bytes:
    """The file as scikit-image ships it; its own loader might download where the package was stripped of it."""
    file = resources.files("skimage.data") / "ihc.png"
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise InputMissingError(
            "the histology image ihc.png must be in the package scikit-image, but this installation lacks it; "
            "install scikit-image from its wheel."
        ) from error


def _tiff(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="minisblack", compression="zlib")
    return file.getvalue()


def _png(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.png_encode(pixels))


def _jpeg(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, level=95))


ENCODERS: dict[str, Callable[[NDArray[Any]], bytes]] = {".tif": _tiff, ".png": _png, ".jpg": _jpeg}
"""How pixels become a file, by suffix."""


def _write(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    paths = [folder / name for name in files]
    for path, content in zip(paths, files.values(), strict=True):
        partial = path.with_name(f".{path.name}.partial")  # hidden, so that `segment` passes over it
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            raise StorageError(
                f"FOLDER {folder}: {path.name} cannot be written ({error.strerror}); make room on the disk, then "
                "give the name of a new folder."
            ) from error
    return paths
