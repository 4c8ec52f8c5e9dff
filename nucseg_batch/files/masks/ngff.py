"""OME-Zarr metadata of label images and of the images above them: where pixels lie, at which levels, in which version.

All of it goes through ome-zarr-models, in version 0.5 for our own stores, 0.4 for labels in a store of zarr format 2.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ome_zarr_models.common.image_label_types import Source
from ome_zarr_models.v04.image_label import ImageLabelAttrs as ImageLabelAttrs04
from ome_zarr_models.v04.labels import LabelsAttrs as LabelsAttrs04
from ome_zarr_models.v04.multiscales import Multiscale as Multiscale04
from ome_zarr_models.v05.axes import Axis
from ome_zarr_models.v05.image import ImageAttrs
from ome_zarr_models.v05.image_label import ImageLabelAttrs
from ome_zarr_models.v05.labels import LabelsAttrs
from ome_zarr_models.v05.multiscales import Dataset, Multiscale

from nucseg_batch.compartments import NUCLEI_LABEL
from nucseg_batch.errors import ImageError
from nucseg_batch.files.names import printable
from nucseg_batch.files.zarr.nodes import OWNER
from nucseg_batch.files.zarr.ome import ome_of, with_ome
from nucseg_batch.files.zarr.systems import flattened
from nucseg_batch.plan import LabelArray

Version = Literal["0.4", "0.5"]
ImageKind = Literal["pixels", "labels"]
AXIS_TYPES = {"t": "time", "i": "image", "c": "channel", "z": "space", "y": "space", "x": "space"}
"""Types of axes by name; that of i is a custom one, of which NGFF allows one."""
IMAGE = "../../"
"""Path from a label group to the image that it belongs to."""


@dataclass(frozen=True)
class Calibration:
    """Place of the first pixel and distance between pixels, by axis; 0, 1 and no unit where nothing is given."""

    scale: Mapping[str, float]
    """Distance of neighbours in `units`."""
    translation: Mapping[str, float]
    """Place of the first pixel."""
    units: Mapping[str, str]
    """Units in words, such as `micrometer`."""
    factors: tuple[Mapping[str, int], ...] = ()
    """Of each level of the image after the first: by how much it is smaller than the level before, along z, y and x."""
    name: str | None = None
    """What the image's metadata call it."""


@dataclass(frozen=True)
class PyramidLevel:
    """A level of a pyramid after the first."""

    shape: tuple[int, ...]
    """Lengths of its axes."""
    factors: tuple[int, ...]
    """How many pixels of the level before come to one of its own, by axis."""


def label_path(label_array: LabelArray, label: str = NUCLEI_LABEL) -> str:
    """Path of the label group of one of a label array's label images in the store."""
    return "/".join(part for part in (label_array.name, "labels", label) if part)


def label_paths(label_array: LabelArray) -> list[str]:
    """Paths of all label groups of a label array, nuclei first."""
    return [label_path(label_array, label) for label in label_array.label_images]


def level_name(number: int) -> str:
    """Name of the array of a level in its group; level 0 is the first, at full resolution."""
    return str(number)


def calibration_of(label_array: LabelArray, image: Mapping[str, Any] | None) -> Calibration:
    """Calibration from the OME attributes (0.4 to 0.6) of its one image; else from the pixel size of all images.

    Time points and depths that are left out move the first plane and widen the distance of planes.
    """
    if image is None or "multiscales" not in image:
        return _calibration_of_files(label_array)
    try:
        whole = _parsed(flattened(image["multiscales"][0]))
    except (
        ImageError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
    ):  # metadata that say nothing understandable
        return _calibration_of_files(label_array)
    scale, translation = dict(whole.scale), dict(whole.translation)
    for axis, chosen in (("t", label_array.images[0].t), ("z", label_array.images[0].z)):
        if chosen is not None:
            step = scale.get(axis, 1.0)
            translation[axis] = translation.get(axis, 0.0) + chosen[0] * step
            scale[axis] = step * chosen[2]
    return Calibration(scale, translation, whole.units, whole.factors, whole.name)


def label_attributes(
    axes: str,
    calibration: Calibration,
    levels: Sequence[PyramidLevel],
    *,
    source: bool,
    name: str = NUCLEI_LABEL,
    version: Version = "0.5",
) -> dict[str, Any]:
    """Attributes of a label group that has its first level; `levels` are to come. `source` names the image above it.

    It has no colours: viewers then choose one for each nucleus, while those that are given colours hide all labels
    without (napari-ome-zarr 0.10 does).
    """
    multiscale = _multiscale(name, axes, calibration, level_name(0))
    own = Source(image=IMAGE) if source else None
    ome: dict[str, Any]
    if version == "0.5":
        image_label = {"version": "0.5", "source": own}
        values = {"version": "0.5", "multiscales": [multiscale], "image-label": image_label}
        model: Any = ImageLabelAttrs.model_validate(values)
        ome = {"ome": model.model_dump(exclude_none=True, by_alias=True, mode="json")}
    else:
        old = Multiscale04.model_validate({**_dump(multiscale), "version": "0.4"})
        values = {"multiscales": [old], "image-label": {"version": "0.4", "source": own}}
        ome = ImageLabelAttrs04.model_validate(values).model_dump(exclude_none=True, by_alias=True, mode="json")
    to_come = [{"shape": list(level.shape), "factors": list(level.factors)} for level in levels]
    return {**ome, OWNER: {"levels": to_come}}


def labels_attributes(names: Iterable[str], *, version: Version = "0.5") -> dict[str, Any]:
    """Attributes of a `labels` group that lists so many label images."""
    if version == "0.4":
        return LabelsAttrs04(labels=list(names)).model_dump(exclude_none=True)
    return {"ome": LabelsAttrs(version="0.5", labels=list(names)).model_dump(exclude_none=True)}


def image_attributes(name: str, axes: str, calibration: Calibration, kind: ImageKind) -> dict[str, Any]:
    """Attributes of an image group of version 0.5 with one level so far: its own, or that of its nuclei."""
    path = level_name(0) if kind == "pixels" else f"labels/{NUCLEI_LABEL}/{level_name(0)}"
    image = ImageAttrs(version="0.5", multiscales=[_multiscale(name, axes, calibration, path)])
    return {"ome": image.model_dump(exclude_none=True, mode="json"), OWNER: {"image": kind}}


def image_kind(attributes: Mapping[str, Any]) -> ImageKind | None:
    """What the arrays of an image group of ours are; None for any other group."""
    kind = attributes.get(OWNER, {}).get("image")
    return kind if kind in get_args(ImageKind) else None


def axes_of(attributes: Mapping[str, Any]) -> str:
    """Letters of the axes of an image or label group of ours."""
    return "".join(axis["name"] for axis in ome_of(attributes)["multiscales"][0]["axes"])


def levels_listed(attributes: Mapping[str, Any]) -> int:
    """How many levels a group's attributes list; 0 for a group that is no image."""
    try:
        return len(ome_of(attributes)["multiscales"][0]["datasets"])
    except (KeyError, IndexError, TypeError, AttributeError):
        return 0


def scale_of(attributes: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Distance of neighbours at the first level of an image or label group of ours, and its unit if any, by axis."""
    multiscale = ome_of(attributes)["multiscales"][0]
    values = _vector(multiscale["datasets"][0], "scale") or [1.0] * len(multiscale["axes"])
    scale = {axis["name"]: value for axis, value in zip(multiscale["axes"], values, strict=True)}
    return scale, {axis["name"]: axis["unit"] for axis in multiscale["axes"] if "unit" in axis}


def with_levels(attributes: Mapping[str, Any], levels: Sequence[PyramidLevel], axes: str) -> dict[str, Any]:
    """Attributes of an image or label group that lists its first level and, after it, `levels` with axes `axes`.

    The group may have other axes besides, along which levels are not smaller.
    """
    multiscales = ome_of(attributes)["multiscales"]
    multiscale = multiscales[0]
    first = Dataset.model_validate(multiscale["datasets"][0])
    names = [axis["name"] for axis in multiscale["axes"]]
    translation = _vector(_dump(first), "translation")
    datasets, scale = [first], _vector(_dump(first), "scale") or [1.0] * len(names)
    for number, level in enumerate(levels, start=1):
        factors = dict(zip(axes, level.factors, strict=True))
        scale = [step * factors.get(name, 1) for step, name in zip(scale, names, strict=True)]
        path = first.path.removesuffix(level_name(0)) + level_name(number)
        datasets.append(_dataset(path, tuple(scale), None if translation is None else tuple(translation)))
    model = Multiscale04 if "ome" not in attributes else Multiscale
    listed = {**multiscale, "datasets": [_dump(dataset) for dataset in datasets]}
    model.model_validate(listed)
    return with_ome(attributes, {"multiscales": [listed, *multiscales[1:]]})


def planned_levels(attributes: Mapping[str, Any]) -> list[PyramidLevel]:
    """The levels that a label group of ours is to have after its first; none for any other group."""
    own = attributes.get(OWNER, {})
    return [PyramidLevel(tuple(level["shape"]), tuple(level["factors"])) for level in own.get("levels", ())]


def _multiscale(name: str, axes: str, calibration: Calibration, path: str) -> Multiscale:
    scale = tuple(calibration.scale.get(axis, 1.0) for axis in axes)
    translation = tuple(calibration.translation.get(axis, 0.0) for axis in axes)
    dataset = _dataset(path, scale, translation if any(translation) else None)
    shown = [Axis(name=axis, type=AXIS_TYPES[axis], unit=calibration.units.get(axis)) for axis in axes]
    return Multiscale(name=printable(name), axes=shown, datasets=(dataset,))


@functools.lru_cache(maxsize=1024)  # the images of a plate share it, and checking it takes long
def _dataset(path: str, scale: tuple[float, ...], translation: tuple[float, ...] | None) -> Dataset:
    return Dataset.build(path=path, scale=scale, translation=translation)


def _dump(model: Any) -> dict[str, Any]:
    values: dict[str, Any] = model.model_dump(exclude_none=True, by_alias=True, mode="json")
    return values


def _calibration_of_files(label_array: LabelArray) -> Calibration:
    size = next(iter(label_array.pixel_sizes)) if len(label_array.pixel_sizes) == 1 else None
    if size is None:
        return Calibration({}, {}, {})
    scale, translation = dict.fromkeys("yx", size), dict[str, float]()
    steps = {(image.z_step, image.z) for image in label_array.images} if "z" in label_array.axes else set()
    step, chosen = next(iter(steps)) if len(steps) == 1 else (None, None)
    if step is not None and chosen is not None:
        scale["z"] = step * chosen[2]
        translation["z"] = step * chosen[0]
    return Calibration(scale, translation, dict.fromkeys(scale, "micrometer"))


def _parsed(multiscale: Mapping[str, Any]) -> Calibration:
    """What a multiscale of version 0.3 to 0.5 says of its image."""
    axes = [axis if isinstance(axis, str) else str(axis["name"]) for axis in multiscale["axes"]]
    units = {
        str(axis["name"]): axis["unit"]
        for axis in multiscale["axes"]
        if isinstance(axis, Mapping) and isinstance(axis.get("unit"), str)
    }
    outer = _checked(_vector(multiscale, "scale"), axes, 1.0)
    shift = _checked(_vector(multiscale, "translation"), axes, 0.0)
    scales = [_checked(_vector(dataset, "scale"), axes, 1.0) for dataset in multiscale["datasets"]]
    inner = _checked(_vector(multiscale["datasets"][0], "translation"), axes, 0.0)
    factors = tuple(_ratio(finer, coarser) for finer, coarser in itertools.pairwise(scales))
    name = multiscale.get("name")
    return Calibration(
        {axis: outer[axis] * scales[0][axis] for axis in axes},
        {axis: outer[axis] * inner[axis] + shift[axis] for axis in axes},
        units,
        factors,
        name if isinstance(name, str) and name else None,
    )


def _vector(holder: Mapping[str, Any], kind: str) -> list[float] | None:
    """The numbers of the transformation of a kind that a multiscale or dataset has; None where it has none."""
    for transformation in holder.get("coordinateTransformations") or ():
        if transformation.get("type") == kind and isinstance(transformation.get(kind), Sequence):
            return [float(value) for value in transformation[kind]]
    return None


def _checked(values: list[float] | None, axes: Sequence[str], default: float) -> dict[str, float]:
    """Numbers by axis; the default for what is no distance: not finite, or 0 or less where it is a scale."""
    if values is None or len(values) != len(axes):
        return dict.fromkeys(axes, default)
    usable = [math.isfinite(value) and (value > 0 or default == 0) for value in values]
    return {axis: value if fine else default for axis, value, fine in zip(axes, values, usable, strict=True)}


def _ratio(finer: Mapping[str, float], coarser: Mapping[str, float]) -> dict[str, int]:
    """Whole factors from one level to the next; 2 along y and x where their scales do not tell them apart."""
    factors = {axis: max(1, round(coarser[axis] / finer[axis])) for axis in "zyx" if axis in finer}
    return factors if factors["y"] > 1 or factors["x"] > 1 else {"y": 2, "x": 2}
