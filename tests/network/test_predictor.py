from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pictures import disks, fluorescence

from nucseg_batch.arrays import geometry
from nucseg_batch.arrays.geometry import ResampleGeometry, padded_batch
from nucseg_batch.arrays.normalize import as_gain
from nucseg_batch.errors import DeviceError
from nucseg_batch.machine.device_use import compilations
from nucseg_batch.machine.processor import BFLOAT16_FLAGS
from nucseg_batch.network import backend, large
from nucseg_batch.network.model_file import Model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.network.program import _normalised
from nucseg_batch.plan import TILE, Adapt
from nucseg_batch.settings import Precision, SegmentSettings


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(8)
    places = [[(int(y), int(x)) for y, x in rng.integers(12, 80, (6, 2))] for _ in range(count)]
    return [fluorescence(disks((91, 93), where, 9), seed=i) for i, where in enumerate(places)]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_an_images_labels_do_not_depend_on_its_batch(default_network: Model, precision: Precision) -> None:
    """To the last bit, at any batch size and place in the batch: the machine's memory must not show in masks."""
    images = pictures(16)
    alone = Predictor(default_network, SegmentSettings(batch_size=1, precision=precision, device="cpu"))
    expected = [alone.predict(image) for image in images]
    assert sum(labels.max() for labels in expected) > 16
    for size in (3, 16):
        many = Predictor(default_network, SegmentSettings(batch_size=size, precision=precision, device="cpu"))
        step = many.batch_size((96, 96))
        found = [one.labels for i in range(0, 16, step) for one in many.predict_batch(images[i : i + step])]
        for first, second in zip(expected, found, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module", params=["float32", "mixed_bfloat16"])
def of_seven(default_network: Model, request: pytest.FixtureRequest) -> Predictor:
    """For batches of seven, in either precision."""
    return Predictor(default_network, SegmentSettings(batch_size=7, precision=request.param, device="cpu"))


@pytest.mark.parametrize("adapt", ["no", "outliers", "each"])
def test_neither_do_those_of_a_rescaled_image(of_seven: Predictor, adapt: Adapt) -> None:
    """Nor does the scale that it ends with: what the others need is their affair."""
    images = [small if i % 3 else large for i, (small, large) in enumerate(zip(pictures(7), fields(7), strict=True))]
    step = of_seven.batch_size((91, 93), 2.0)
    together = [r for i in range(0, 7, step) for r in of_seven.predict_batch(images[i : i + step], 2.0, adapt=adapt)]
    assert {r.scale for r in together} == {2.0} or adapt != "no"
    for image, result in zip(images, together, strict=True):
        (alone,) = of_seven.predict_batch([image], 2.0, adapt=adapt)
        assert alone.scale == result.scale
        np.testing.assert_array_equal(alone.labels, result.labels)


def test_outliers_that_do_not_fit_into_memory_together_are_segmented_one_by_one(
    default_network: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their batch has another shape than the one that they came in, and shrinks by itself."""
    predictor = Predictor(default_network, SegmentSettings(batch_size=4, precision="float32", device="cpu"))
    images = fields(4)
    expected = predictor.predict_batch(images, 2.0, adapt="outliers")
    assert {one.scale for one in expected} != {2.0}
    segmented, refused = Predictor._segmented, []

    def crowded(self: Predictor, shown: Any, scale: float, size: int, **options: Any) -> Any:
        if scale != 2.0 and size > 1:
            refused.append(size)
            raise MemoryError("the device has no room")
        return segmented(self, shown, scale, size, **options)

    monkeypatch.setattr(Predictor, "_segmented", crowded)
    found = predictor.predict_batch(images, 2.0, adapt="outliers")
    assert refused
    for one, other in zip(found, expected, strict=True):
        assert one.scale == other.scale
        np.testing.assert_array_equal(one.labels, other.labels)


def test_an_outlier_is_not_segmented_twice_at_one_scale(
    default_network: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another scale turned out worse, it would do so again."""
    predictor = Predictor(default_network, SegmentSettings(precision="float32", device="cpu"))
    rng = np.random.default_rng(8)
    narrow = fluorescence(disks((91, 93), [(int(y), int(x)) for y, x in rng.integers(12, 80, (6, 2))], 4), seed=0)
    segmented, scales = Predictor._segmented, []

    def counted(self: Predictor, shown: Any, scale: float, size: int, **options: Any) -> Any:
        scales.append(scale)
        return segmented(self, shown, scale, size, **options)

    monkeypatch.setattr(Predictor, "_segmented", counted)
    (found,) = predictor.predict_batch([narrow], adapt="outliers")
    assert found.scale == 1
    assert len(scales) == len(set(scales)) == 2


def test_images_of_all_dtypes_share_programs_on_a_processor(default_network: Model) -> None:
    """Each would take memory and a second, and none computes anything else."""
    predictor = Predictor(default_network, SegmentSettings(precision="float32", device="cpu"))
    (image,) = pictures(1)
    expected = [predictor.predict(image, scale) for scale in (1.0, 2**0.5)]
    before = compilations.total()[0]
    for dtype in (np.uint16, np.int16, np.int32, np.uint32, np.float32):
        for scale, labels in zip((1.0, 2**0.5), expected, strict=True):
            assert labels.max() > 2
            np.testing.assert_array_equal(predictor.predict(image.astype(dtype), scale), labels)
    assert compilations.total()[0] == before


def test_a_batch_is_not_filled_up_where_a_full_one_failed(
    default_network: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU has a program for full batches only; but a single image that is tried alone must not need their memory."""
    predictor = Predictor(default_network, SegmentSettings(batch_size=4, precision="float32", device="cpu"))
    sizes: list[int] = []
    run = predictor._program.run

    def counted(program: Any, first: Any, *others: Any, **options: Any) -> Any:
        sizes.append(len(first))
        return run(program, first, *others, **options)

    monkeypatch.setattr(predictor._program, "run", counted)
    labelling = predictor._labelling_for(ResampleGeometry.of((91, 93), 1.0))
    monkeypatch.setattr(predictor, "_labelling_for", lambda frame, look=False: labelling)
    monkeypatch.setattr(predictor, "device", "gpu:0")  # all that decides on the size is the device's name
    images = pictures(3)
    expected = predictor.predict_batch(images[:1])
    alone = predictor.predict_batch(images[:1], fill=False)
    predictor.predict_batch(images, fill=False)
    assert sizes == [4, 1, 4]
    np.testing.assert_array_equal(alone[0].labels, expected[0].labels)
    assert predictor.shrink((91, 93), 1.0, 4)
    predictor.predict_batch(images[:1])
    assert sizes[3:] == [2], "nor beyond the size that is left after a lack of memory"


@pytest.mark.parametrize("scale", [0.5, 2**-0.5, 1.0, 2**0.5])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_an_image_is_answered_alike_at_every_place_of_every_batch(
    default_network: Model, precision: Precision, scale: float
) -> None:
    """What it is shown and all that it says, to the last bit: labels hide what shows in one image of thousands."""
    predictor = Predictor(default_network, SegmentSettings(device="cpu", precision=precision))
    image = np.random.default_rng(1).integers(0, 64, (128, 160), np.uint8)
    frame = ResampleGeometry.of(image.shape, scale)
    program = predictor._program

    def answers(count: int) -> list[np.ndarray]:
        batch = padded_batch([image] * count, frame.native_bucket, count)
        low, gain = as_gain([(3.0, 33.0)] * count)  # of 1 / 30 a fast division has other bits than an exact one
        shown = program.run(_normalised, batch, low, gain)
        if frame.is_native:
            return [shown, *program.run(program.answers, batch, low, gain)]
        rows, columns, *_ = frame.back()
        return [shown, *program.run(program.answers_rescaled, batch, low, gain, frame.there(), (rows, columns))]

    alone = answers(1)
    for count in (2, 7, 16):
        for one, others in zip(alone, answers(count), strict=True):
            for other in others:
                np.testing.assert_array_equal(one[0], other)


def test_the_range_of_an_image_does_not_depend_on_its_neighbours() -> None:
    """Factors are those of exact division, however many there are."""
    ranges = [(float(i % 7), float(9 + 13 * i)) for i in range(37)]
    low, gain = as_gain([*ranges, (5.0, 5.0)])
    assert [float(one) for one in gain[:-1]] == [float(np.float32(1) / np.float32(b - a)) for a, b in ranges]
    assert (low[-1], gain[-1]) == (5.0, 0.0)


def fields(count: int) -> list[np.ndarray]:
    """Pictures of the size of `pictures`, of nuclei three times as wide."""
    return [fluorescence(disks((91, 93), [(45, 20 + 5 * i), (60, 75)], 24), seed=i) for i in range(count)]


@pytest.mark.parametrize("scale", [1.0, 2**0.5, 2**-0.5])
def test_a_large_image_in_tiles_is_the_same_as_in_one_piece(
    predictor: Predictor, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No seam can be seen, because nothing differs: tiles overlap by all that the network sees."""
    image = np.tile(pictures(1)[0], (12, 13))[:1013, :1101]
    side = 2 * predictor.model.info.network.halo + 256
    assert side < 1013 * scale, "it is done in tiles"
    whole = predictor.predict(image, scale)
    assert whole.max() > 20
    for module in (geometry, large):
        monkeypatch.setattr(module, "TILE", side)
    np.testing.assert_array_equal(predictor.predict(image, scale), whole)


@pytest.mark.parametrize("radius", [4, 8, 12, 25, 50])
def test_nuclei_of_any_width_are_found_without_a_word_about_it(predictor: Predictor, radius: int) -> None:
    """Eight pixels or a hundred: the image is rescaled until they fit, and masks lie on its own pixels."""
    side = 16 * radius
    places = [(side * y // 6, side * x // 6) for y in (1, 3, 5) for x in (1, 3, 5) if (y, x) != (3, 3)]
    truth = disks((side, side + 7), places, radius)
    result = predictor.look(fluorescence(truth), 1.0)
    assert result.labels.shape == truth.shape
    assert result.labels.max() == 8
    assert 0.6 < result.scale * 2 * radius / predictor.diameter < 1.6
    overlap = ((result.labels > 0) & (truth > 0)).sum() / ((result.labels > 0) | (truth > 0)).sum()
    assert overlap > 0.75


@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "counts", "one value", "saturated"])
def test_an_empty_field_has_no_nuclei(predictor: Predictor, kind: str) -> None:
    """Its noise is shown to the network at full contrast; not one speck of it may become a row of a table."""
    rng = np.random.default_rng(3)
    shape = (203, 211)
    image = {
        "8 bit": rng.normal(20, 3, shape).clip(0, 255).astype(np.uint8),
        "16 bit": rng.normal(400, 20, shape).astype(np.uint16),
        "counts": rng.poisson(2, shape).astype(np.uint8),
        "one value": np.full(shape, 37, np.uint8),
        "saturated": rng.normal(253, 3, shape).clip(0, 255).astype(np.uint8),
    }[kind]
    assert predictor.predict(image).max() == 0
    assert predictor.look(image, 1.0).labels.max() == 0


def test_nuclei_are_found_where_they_are(predictor: Predictor) -> None:
    """Round bright nuclei on dark ground: the count and the area are right, in 8 bit, 16 bit and as colour."""
    truth = disks((131, 137), [(30, 33), (70, 95), (100, 40)], 12)
    image = fluorescence(truth)
    for shown in (image, image.astype(np.uint16) * 137, np.repeat(image[..., None], 3, axis=2)):
        labels = predictor.predict(shown)
        assert labels.max() == 3
        overlap = ((labels > 0) & (truth > 0)).sum() / ((labels > 0) | (truth > 0)).sum()
        assert overlap > 0.8


def test_padding_mirrors_the_image() -> None:
    """A black frame would be an edge that no microscope saw."""
    image = np.arange(35, dtype=np.uint8).reshape(5, 7)
    batch = padded_batch([image], (8, 9), 2)
    assert batch.shape == (2, 8, 9, 1)
    np.testing.assert_array_equal(batch[0, :5, :7, 0], image)
    np.testing.assert_array_equal(batch[0, 5:, :7, 0], image[:1:-1])
    np.testing.assert_array_equal(batch[0, :5, 7:, 0], image[:, :4:-1])
    assert (batch[1] == 0).all()


def test_a_gpu_that_is_asked_for_and_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night on the CPU by mistake is the worst of errors; auto falls back."""
    monkeypatch.setattr(backend, "gpu_count", lambda: 0)
    assert backend.resolve_device("auto") == "cpu:0"
    with pytest.raises(DeviceError, match="--device cpu"):
        backend.resolve_device("gpu")


def test_auto_precision_is_bfloat16_only_where_the_processor_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere it would be emulated, and slow."""
    for flags, expected in (
        ({"avx2"}, "float32"),
        ({"avx512_bf16"}, "mixed_bfloat16"),
        ({"amx_bf16"}, "mixed_bfloat16"),
    ):
        monkeypatch.setattr(backend, "bfloat16_flags", lambda flags=flags: flags & BFLOAT16_FLAGS)
        assert backend.resolve_precision("auto", "cpu:0") == expected
    assert backend.resolve_precision("auto", "gpu:0") == "mixed_bfloat16"
    assert backend.resolve_precision("float32", "gpu:0") == "float32"


def test_images_that_are_tiled_are_never_pooled(default_network: Model) -> None:
    """Sixteen slides in one batch would fill memory and gain nothing."""
    use = Predictor(default_network, SegmentSettings(batch_size=16, precision="mixed_bfloat16", device="cpu"))
    assert use.batch_size((256, 256)) == 16
    assert use.batch_size((256, TILE + 128)) == 1
