from __future__ import annotations

import numpy as np
import pytest
from pictures import disks, fluorescence

from nucseg_batch.errors import DeviceError
from nucseg_batch.executors.existing import default_model
from nucseg_batch.network import backend, predictor
from nucseg_batch.network.model_file import Model, load_model
from nucseg_batch.network.predictor import Predictor, padded_batch
from nucseg_batch.settings import Precision, SegmentSettings


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(default_model())


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(8)
    places = [[(int(y), int(x)) for y, x in rng.integers(12, 80, (6, 2))] for _ in range(count)]
    return [fluorescence(disks((91, 93), where, 9), seed=i) for i, where in enumerate(places)]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_an_images_labels_do_not_depend_on_its_batch(model: Model, precision: Precision) -> None:
    """To the last bit, at any batch size and place in the batch: the machine's memory must not show in masks."""
    images = pictures(16)
    alone = Predictor(model, SegmentSettings(batch_size=1, precision=precision, device="cpu"))
    expected = [alone.predict(image) for image in images]
    assert sum(labels.max() for labels in expected) > 16
    for size in (3, 16):
        many = Predictor(model, SegmentSettings(batch_size=size, precision=precision, device="cpu"))
        step = many.batch_size((96, 96))
        found = [labels for i in range(0, 16, step) for labels in many.predict_batch(images[i : i + step])]
        for first, second in zip(expected, found, strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_large_image_in_tiles_is_the_same_as_in_one_piece(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """No seam can be seen, because nothing differs: tiles overlap by all that the network sees."""
    image = np.tile(pictures(1)[0], (5, 6))[:397, :523]
    whole = Predictor(model, SegmentSettings(device="cpu")).predict(image)
    assert whole.max() > 40
    monkeypatch.setattr(predictor, "TILE", 256)
    np.testing.assert_array_equal(Predictor(model, SegmentSettings(device="cpu")).predict(image), whole)


def test_nuclei_are_found_where_they_are(model: Model) -> None:
    """Round bright nuclei on dark ground: the count and the area are right, in 8 bit, 16 bit and as colour."""
    truth = disks((131, 137), [(30, 33), (70, 95), (100, 40)], 12)
    image = fluorescence(truth)
    use = Predictor(model, SegmentSettings(device="cpu"))
    for shown in (image, image.astype(np.uint16) * 137, np.repeat(image[..., None], 3, axis=2)):
        labels = use.predict(shown)
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
        monkeypatch.setattr(backend, "_cpu_flags", lambda flags=flags: flags)
        assert backend.resolve_precision("auto", "cpu:0") == expected
    assert backend.resolve_precision("auto", "gpu:0") == "mixed_bfloat16"
    assert backend.resolve_precision("float32", "gpu:0") == "float32"


def test_images_that_are_tiled_are_never_pooled(model: Model) -> None:
    """Sixteen slides in one batch would fill memory and gain nothing."""
    use = Predictor(model, SegmentSettings(batch_size=16, precision="mixed_bfloat16", device="cpu"))
    assert use.batch_size((256, 256)) == 16
    assert use.batch_size((256, predictor.TILE + 128)) == 1
