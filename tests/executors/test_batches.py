from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nucseg_batch.arrays.geometry import ResampleGeometry
from nucseg_batch.executors import batches
from nucseg_batch.network.labelling import Separation
from nucseg_batch.network.model_file import Model
from nucseg_batch.network.predictor import Predictor
from nucseg_batch.settings import SegmentSettings


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return batches.cache_file()


@pytest.fixture
def predictor(default_network: Model) -> Predictor:
    return Predictor(default_network, SegmentSettings(device="cpu", precision="mixed_bfloat16"))


def test_a_measured_size_is_kept_for_the_next_run(predictor: Predictor, default_network: Model, cache: Path) -> None:
    """Measuring takes seconds, so it is done once for a device, a network and a precision."""
    batches.remember(predictor, 3 * 2**20)
    again = Predictor(default_network, SegmentSettings(device="cpu", precision="mixed_bfloat16"))
    assert batches.choose(again) == []
    assert again.batch_size((256, 256)) == 48
    other = Predictor(default_network, SegmentSettings(device="cpu", precision="float32"))
    assert batches.remembered(other) is None
    assert cache.is_file()


def test_on_a_processor_nothing_is_measured_unasked(predictor: Predictor, cache: Path) -> None:
    """Sizes hardly matter there, and the first mask would come later."""
    assert batches.choose(predictor) == []
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": "b"}'])
def test_a_damaged_cache_is_as_good_as_none(predictor: Predictor, cache: Path, content: str) -> None:
    """It only holds what can be measured again."""
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert batches.remembered(predictor) is None
    batches.remember(predictor, 2**21)
    assert batches.remembered(predictor) == 2**21


def test_a_cache_that_cannot_be_written_is_no_error(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes of a cluster often have no home that can be written."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    batches.remember(predictor, 2**21)
    assert batches.choose(predictor) == []


def test_speed_is_that_of_whole_batches_of_the_network(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch to compile and two that count, of as many images as the pixels are."""
    monkeypatch.setattr("nucseg_batch.network.batching.TRIED_SECONDS", 0.0)
    sizes: list[int] = []
    labelling_for = Predictor._labelling_for

    def counted(self: Predictor, frame: ResampleGeometry) -> Separation:
        labelling = labelling_for(self, frame)
        batch = labelling.batch

        def noted(pixels: np.ndarray, *others: Any) -> object:
            sizes.append(len(pixels))
            return batch(pixels, *others)

        monkeypatch.setattr(labelling, "batch", noted)
        return labelling

    monkeypatch.setattr(Predictor, "_labelling_for", counted)
    assert predictor.speed(2 * 256**2) > 0
    assert sizes == [2, 2, 2]
