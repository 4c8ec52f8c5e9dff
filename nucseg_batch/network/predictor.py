"""A model at work: images of any size and scale go in as they were read, labels on the same grid come out.

Images are padded to a shape from a short list (`bucket_shape`), which depends on nothing but the image, and batches are
always full, so that an image's labels never depend on its neighbours. Images whose nuclei are larger or smaller than
those the model knows are rescaled on the device, and labels return to the image's own pixels.

An image too large for one call is sent through the network in tiles that overlap by the network's reach, on a grid
fixed by the image; the outputs are then exactly those of the whole image, and nuclei are separated over all of it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.geometry import ResampleGeometry, Shown, fitted_scale, padded_batch
from nucseg_batch.arrays.normalize import as_gain
from nucseg_batch.arrays.ranges import intensity_range
from nucseg_batch.arrays.scale import numbered, step_scale
from nucseg_batch.arrays.scale_search import ScaleTrial, another_scale, paying_diameter, searched_scales
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.network import backend, large, regions
from nucseg_batch.network.architectures import build, build_sizer, fold_weights
from nucseg_batch.network.batching import (
    CALL_PIXELS,
    TRIED_SIDE,
    HalvedSizes,
    measured_speed,
    power_of_two,
    stage_calls,
)
from nucseg_batch.network.labelling import DeviceSeparation, HostSeparation, Separation
from nucseg_batch.network.ledger import Ledger
from nucseg_batch.network.model_file import Model
from nucseg_batch.network.program import Program
from nucseg_batch.network.sizing import LOOK_PIXELS, SizeEstimator
from nucseg_batch.plan import BATCH_PIXELS, SIZER_BYTES, Adapt, Budget
from nucseg_batch.settings import DEFAULT_MEMORY, Intensities, SegmentSettings

MAX_BATCH = 64
"""Images in a batch at most, where they are so small that pixels would allow more."""
SMALLEST_CALL = 2**20
"""Calls for parts of a region are not made of fewer pixels than half of this, however little memory there is."""
LOOK_MIN_AREA = 12
"""Smallest piece in pixels that counts in a look: from afar small nuclei are small, and must not be overlooked."""
OUTLIER_LOOKS = 2
"""How often an image that does not fit its scale is looked at again at most."""
Limits = Sequence[tuple[float, float]] | None
"""The values that become 0 and 1 of each image, where these are known."""


class Predictor:
    """A model, ready on a device; threads may share it.

    threshold and min_area are the settings' or, where those are None, the model's own. `batch_pixels` is how many
    pixels make a batch of automatic size.
    """

    def __init__(self, model: Model, settings: SegmentSettings) -> None:
        self.device = backend.resolve_device(settings.device)
        self.precision = backend.resolve_precision(settings.precision, self.device)
        self.model = model
        self._settings = settings
        self.budget = Budget(settings.memory_bytes, self.precision)
        on_host = self.device.startswith("cpu")
        self._ledger = Ledger(self.budget.network_bytes, self.budget.kept_bytes) if on_host else Ledger(math.inf)
        self._call_pixels = self.budget.call_pixels if on_host else None  # then as many as in a batch
        self.batch_pixels = self.budget.batch_pixels if on_host else BATCH_PIXELS
        usual = Budget(DEFAULT_MEMORY, self.precision)  # whatever the run has: tiles must not depend on it
        self._tile_room = regions.TileRoom(usual.call_pixels, usual.window_pixels if on_host else math.inf)
        self._coarse = backend.compiles_each_shape(self.device)
        self._halved = HalvedSizes()
        with backend.on_device(self.device):
            self._network = build(model.info.network, normalise=False, dtype=self.precision)
            self._sizer = None if model.sizer is None else build_sizer(normalise=False, dtype=self.precision)
            self.refresh()
        self._making = threading.Lock()
        self._program = self._made_program()
        self._sizing: SizeEstimator | None = None
        if self._sizer is not None:
            program = self._made_program(self._sizer, augment=False, pixel_bytes=SIZER_BYTES)
            pixels = 0 if self._coarse and on_host else LOOK_PIXELS
            self._sizing = SizeEstimator(program, coarse=self._coarse, pixels=pixels, full=self._coarse)
        self._labellings: dict[tuple[float, int, bool], Separation] = {}
        self._reach = regions.WindowGrid(model.info.network.halo, model.info.network.stride)

    @property
    def diameter(self) -> float:
        """Width in pixels that nuclei have where the network knows them best."""
        return self.model.info.diameter

    def refresh(self) -> None:
        """Takes over the model's present weights, as needed while it is being trained."""
        fold_weights(self.model.network, self._network)
        if self.model.sizer is not None and self._sizer is not None:
            fold_weights(self.model.sizer, self._sizer)

    def batch_size(self, shape: tuple[int, int], scale: float = 1.0) -> int:
        """Images of this shape that go into one call at this scale."""
        frame = self._frame(shape, scale)
        bucket = frame.bucket
        if frame.is_large:
            return 1  # its tiles are the batches; more such images at once would only fill memory
        if frame.coarse and self.device.startswith("cpu"):
            return 1  # each size of batches would be compiled, and gains little on a processor
        most = max(MAX_BATCH, self.batch_pixels // TRIED_SIDE**2)
        size = self._settings.batch_size or int(np.clip(self.batch_pixels // math.prod(bucket), 1, most))
        return self._halved.limited(bucket, size)

    def _frame(self, shape: tuple[int, ...], scale: float) -> ResampleGeometry:
        """Where an image of this shape lies on the device, if it is not too large for one call."""
        return ResampleGeometry.of(shape, scale, coarse=self._coarse)

    @property
    def _most_pixels(self) -> int:
        """Pixels in one call for a part of a large image, at most."""
        return self._call_pixels or max(CALL_PIXELS, self.batch_pixels)

    def shrink(self, shape: tuple[int, int], scale: float, size: int) -> bool:
        """Halves the batches of this padded shape, after a MemoryError in one of `size`; False where that was 1."""
        self._halved.halve(self._frame(shape, scale).bucket, size)
        return size > 1

    def machine(self) -> dict[str, str]:
        """How results are computed: what a run must not change halfway."""
        library = backend.versions()
        name = library["backend"]
        return {"precision": self.precision, "device": self.device.split(":")[0], "backend": f"{name} {library[name]}"}

    def hardware(self) -> str:
        """Name of the device."""
        return backend.hardware(self.device)

    def speed(self, pixels: int) -> float:
        """Megapixels a second from raw grey pixels to labels, in batches of so many; MemoryError where they do not fit.

        Noise takes the network as long as nuclei do. The first batch, which is compiled, does not count.
        """
        return measured_speed(self._labelling_for(self._frame((TRIED_SIDE, TRIED_SIDE), 1.0)), pixels)

    def stages(self, images: Sequence[NDArray[Any]], scale: float) -> tuple[Callable[[], object], Callable[[], object]]:
        """The network alone on images of one shape at a scale, and the separation of its answers; see `stage_calls`."""
        frame = self._frame(images[0].shape[:2], scale)
        return stage_calls(self._labelling_for(frame), frame, images, [self.range_of(image) for image in images])

    def predict(self, pixels: NDArray[Any], scale: float = 1.0) -> NDArray[np.int32]:
        """Labels one image, (height, width) or (height, width, 3) of uint8, uint16 or float32, to (height, width)."""
        return self.predict_batch([pixels], scale)[0].labels.astype(np.int32, copy=False)

    def look(self, pixels: NDArray[Any], begin: float) -> ScaleTrial:
        """Segments one image at the scale that fits it, found by looks at several of which `begin` is the first.

        A model with a size network finds it without segmenting and without `begin`.
        """
        return self.predict_batch([pixels], begin, adapt="each")[0]

    @property
    def sizes_alone(self) -> bool:
        """Whether the model has a size network, which tells the scale of each image."""
        return self._sizing is not None

    def width(self, pixels: NDArray[Any], limits: tuple[float, float] | None = None) -> float | None:
        """Typical width in pixels of the nuclei of an image, by the model's size network; None where it sees none.

        pixels: (height, width) or (height, width, 3). limits: the values that become 0 and 1, where these are not
        measured on the image alone. Raises ValueError for a model without a size network.
        """
        if self._sizing is None:
            raise ValueError("the model has no size network.")
        return self._sizing.width(pixels, limits or self.range_of(pixels))

    def looks_at_once(self, shape: tuple[int, int]) -> int:
        """How many images of a shape `own_scales` looks at in one call of the size network."""
        return 1 if self._sizing is None else self._sizing.at_once(shape)

    def own_scales(self, images: Sequence[NDArray[Any]], limits: Limits = None, *, fill: bool = True) -> list[float]:
        """The scales that fit images of one shape, dtype and number of channels, by the size network.

        1 where it sees no nuclei; else one at which little of what the network sees is padding. fill: see
        `predict_batch`. Raises ValueError for a model without a size network, and MemoryError where one does not fit.
        """
        if self._sizing is None:
            raise ValueError("the model has no size network.")
        widths = self._sizing.widths(images, limits or [self.range_of(image) for image in images], fill=fill)
        height, width, *colours = images[0].shape
        own = [None if one is None else self.scale_of(one, grey=not colours) for one in widths]
        return [1.0 if scale is None else fitted_scale(height, width, scale) for scale in own]

    def scale_of(self, width: float, *, grey: bool) -> float:
        """The scale for an image with nuclei of this width in pixels."""
        return step_scale(self._wanted(width, grey=grey) / width)

    def _wanted(self, width: float | None, *, grey: bool) -> float:
        """The width to which nuclei of an image are brought: `diameter`, or less where the size network decides."""
        if width is None or self._sizing is None:
            return self.diameter
        return paying_diameter(width, self.diameter, grey=grey)

    @property
    def intensities(self) -> Intensities:
        """By which rule the range of an image's values is measured."""
        return self.model.info.intensities

    def range_of(self, pixels: NDArray[Any]) -> tuple[float, float]:
        """The values of an image that become 0 and 1, by the model's rule."""
        return intensity_range(pixels, self.intensities)

    def predict_batch(
        self,
        images: Sequence[NDArray[Any]],
        scale: float = 1.0,
        *,
        adapt: Adapt = "no",
        limits: Limits = None,
        fill: bool = True,
    ) -> list[ScaleTrial]:
        """Labels images that share dtype, channels and shape (at scale 1: padded shape), at most `batch_size` of them.

        `adapt`: with `outliers` an image whose nuclei turn out much larger or smaller than the model knows them is
        looked at again at a scale of its own; with `each`, every image is looked at at several scales, of which `scale`
        is the first, and then at the one that fits. fill: whether a GPU computes batches that are not full as full
        ones, for which it has a program; not where a full one failed, which may have been too large. Raises MemoryError
        where the device's memory does not suffice, and ValueError for more images than a batch holds.
        """
        size = self.batch_size(images[0].shape[:2], scale)
        if len(images) > size:
            raise ValueError(f"a batch of images of {images[0].shape} holds {size}, but {len(images)} were given.")
        shown = [Shown(*one) for one in zip(images, limits or [self.range_of(image) for image in images], strict=True)]
        if adapt == "each":
            return self._at_their_own_scales(shown, scale, fill)
        found = self._segmented(shown, scale, self._filled(len(images), size, fill))
        return self._again(shown, found, fill) if adapt == "outliers" else found

    def tiles(self, shape: tuple[int, int], scale: float, bounds: large.Window, region: int) -> list[regions.LabelTile]:
        """The tiles in which a region, `bounds`, of a plane of this shape is done; region: longest side of regions."""
        return list(regions.tiles(regions.plane_frame(shape, scale), bounds, region, self._reach, self._tile_room))

    def label_tile(self, tile: regions.LabelTile, pixels: NDArray[Any], limits: tuple[float, float]) -> SeparatedNuclei:
        """What is in a tile, see `regions.label_tile`; where memory runs out, in smaller calls from then on.

        Raises MemoryError where even those do not fit.
        """
        labelling = self._labelling_for(tile.frame)
        while True:
            most = self._most_pixels
            try:
                return regions.label_tile(labelling, tile, pixels, limits, self._reach, most)
            except MemoryError:
                if most < SMALLEST_CALL:
                    raise
                self._call_pixels = most // 2

    def heads(self, pixels: NDArray[Any], scale: float = 1.0) -> NDArray[np.float32]:
        """The network's answer for one image at a scale, padded and folded as `Program.heads` are."""
        frame = ResampleGeometry.of(pixels.shape[:2], scale)
        program, halo = self._labelling_for(frame).program, self.model.info.network.halo
        return large.heads(program, pixels, self.range_of(pixels), frame, halo)

    def labels_of_heads(
        self, heads: NDArray[np.float32], shape: tuple[int, int], scale: float, *, threshold: float, min_area: int
    ) -> NDArray[np.int32]:
        """Labels on an image's grid of `shape` from its `heads`, as when several thresholds are tried on one answer.

        They are separated on the host, where another threshold needs no other compiled program.
        """
        labelling = HostSeparation(self._program, threshold=threshold, min_area=min_area, look=False)
        return large.found(labelling, heads, ResampleGeometry.of(shape, scale)).labels

    def _at_their_own_scales(self, images: Sequence[Shown], begin: float, fill: bool) -> list[ScaleTrial]:
        """Segments each image at the scale that fits it: as the size network says or looks at several, from `begin`."""
        if self._sizing is not None:
            pixels, limits = [one.pixels for one in images], [one.limits for one in images]
            sized = self._look(images, self.own_scales(pixels, limits, fill=fill), fill)
            return self._again(images, [sized[i] for i in range(len(images))], fill)

        def look(scales: Sequence[float | None]) -> dict[int, ScaleTrial]:
            return self._look(images, scales, fill, look=True)

        found = self._look(images, searched_scales(look, len(images), begin, self.diameter), fill)
        return [found[i] for i in range(len(images))]

    def _again(self, images: Sequence[Shown], found: list[ScaleTrial], fill: bool) -> list[ScaleTrial]:
        """Segments images again whose nuclei turned out much wider or narrower than they should be; the better of both.

        At most OUTLIER_LOOKS times, and not at a scale at which an image was already segmented: it would lose again.
        """
        found, tried = list(found), [{one.scale} for one in found]
        for _ in range(OUTLIER_LOOKS):
            nominal = [self._wanted(one.width, grey=image.grey) for one, image in zip(found, images, strict=True)]
            scales = [another_scale(*pair) for pair in zip(found, nominal, strict=True)]
            scales = [scale and fitted_scale(*image.shape, scale) for image, scale in zip(images, scales, strict=True)]
            scales = [None if scale in before else scale for scale, before in zip(scales, tried, strict=True)]
            if not any(scales):
                break
            for i, new in self._look(images, scales, fill).items():
                tried[i].add(new.scale)
                if new.misfit(self._wanted(new.width, grey=images[i].grey)) < found[i].misfit(nominal[i]):
                    found[i] = new
        return found

    def _look(
        self, images: Sequence[Shown], scales: Sequence[float | None], fill: bool, *, look: bool = False
    ) -> dict[int, ScaleTrial]:
        """Segments images, each at a scale of its own or not at all, in batches of those that agree; by their place."""
        groups: dict[tuple[float, tuple[int, int]], list[int]] = {}
        for i, (image, scale) in enumerate(zip(images, scales, strict=True)):
            if scale is not None:
                groups.setdefault((scale, image.shape), []).append(i)
        found: dict[int, ScaleTrial] = {}
        for (scale, shape), members in groups.items():
            while members:
                most = self.batch_size(shape, scale)
                part = members[:most]
                size = self._filled(len(part), most, fill)
                try:
                    seen = self._segmented([images[i] for i in part], scale, size, look=look)
                except MemoryError:
                    if not self.shrink(shape, scale, size):
                        raise
                    continue
                found.update(zip(part, seen, strict=True))
                members = members[most:]
        return found

    def _filled(self, count: int, size: int, fill: bool) -> int:
        """To how many images a batch that is not full is filled up: few shapes are compiled, and on a GPU only one.

        There, too, no more than on a processor if not `fill`.
        """
        return size if fill and not self.device.startswith("cpu") else min(size, power_of_two(count))

    def _segmented(self, images: Sequence[Shown], scale: float, size: int, *, look: bool = False) -> list[ScaleTrial]:
        """A batch at one scale, computed as a batch of `size`; `look` if only scales are to be compared."""
        ranges, shapes = [image.limits for image in images], [image.shape for image in images]
        frame = self._frame(shapes[0], scale)
        labelling = self._labelling_for(frame, look=look)
        if frame.is_large:
            return [self._large(labelling, one.pixels, one.limits, scale, look=look) for one in images]
        fill = size - len(images)
        pixels = padded_batch([image.pixels for image in images], frame.native_bucket, size)
        low, gain = as_gain(ranges + [(0.0, 0.0)] * fill)
        sizes = (shapes if frame.is_native else [frame.scaled] * len(images)) + [(1, 1)] * fill
        heights, widths = np.array(sizes, np.int32).T
        ways = None if frame.is_native else (frame.there(), frame.back())
        answers = labelling.batch(pixels, low, gain, (heights, widths), ways, len(images))
        found = []
        for one, (height, width) in zip(answers, shapes, strict=True):
            labels, support = one.labels[:height, :width], one.support[:height, :width]
            labels = labels if frame.is_native else numbered(labels)
            found.append(ScaleTrial(labels, scale, one.certainty, support))
        return found

    def _large(
        self, labelling: Separation, pixels: NDArray[Any], limits: tuple[float, float], scale: float, *, look: bool
    ) -> ScaleTrial:
        """An image that is too large for a batch, in tiles."""
        frame = ResampleGeometry.of(pixels.shape[:2], scale)
        if not look:
            sizes = self._reach, self._tile_room, self._most_pixels
            found = regions.label_image(labelling, frame, pixels, limits, *sizes)
            return ScaleTrial(found.labels if frame.is_native else numbered(found.labels), scale, support=found.support)
        heads = large.heads(labelling.program, pixels, limits, frame, self.model.info.network.halo)
        one = large.found(labelling, heads, frame)
        return ScaleTrial(one.labels, scale, large.certainty(labelling, heads, frame), one.support)

    def _labelling_for(self, frame: ResampleGeometry, *, look: bool = False) -> Separation:
        """The way to labels at a scale; the settings' smallest area is in the image's pixels, the model's is not."""
        info, settings = self.model.info, self._settings
        threshold = info.threshold if settings.threshold is None else settings.threshold
        if look:
            return self._labelling(threshold, LOOK_MIN_AREA, look=True)
        if settings.min_area is None:
            return self._labelling(threshold, info.min_area)
        return self._labelling(threshold, round(settings.min_area * math.prod(frame.scaled) / math.prod(frame.native)))

    def _labelling(self, threshold: float, min_area: int, *, look: bool = False) -> Separation:
        """The way to labels with these options, made once."""
        key = (threshold, min_area, look)
        with self._making:
            if key not in self._labellings:
                self._labellings[key] = self._made(*key)
            return self._labellings[key]

    def _made(self, threshold: float, min_area: int, look: bool) -> Separation:
        options: dict[str, Any] = {"threshold": threshold, "min_area": min_area, "look": look}
        if self.device.startswith("cpu"):
            return HostSeparation(self._program, **options)
        return DeviceSeparation(self._made_program(**options), look=look)

    def _made_program(self, network: keras.Model | None = None, **options: Any) -> Program:
        apart = backend.depends_on_batch(self.precision, self.device)
        options = {"apart": apart, "augment": self._settings.augment, **options}
        options = {"ledger": self._ledger, "pixel_bytes": self.budget.bytes_per_pixel, **options}
        return Program(network or self._network, self.model.info.network, device=self.device, **options)
