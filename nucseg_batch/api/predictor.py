"""A model at work on arrays, for programs that have images in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.api.segment import settings_of
from nucseg_batch.api.values import checked_diameter, checked_image
from nucseg_batch.arrays.confidence import nuclei_confidence
from nucseg_batch.errors import UsageError
from nucseg_batch.executors.existing import default_model
from nucseg_batch.executors.kept_models import find_model

if TYPE_CHECKING:
    from nucseg_batch.arrays.scale_search import ScaleTrial

OPTIONS = ("threshold", "min_area", "augment", "precision", "device")
"""Options of `Predictor`, as `nucseg_batch.SegmentSettings` defines them."""
BEGIN = 1.0
"""Scale at which a look at an image of which nothing is known begins."""


class Predictor:
    """A model that is loaded once and segments any number of arrays; threads can share it.

    The first image takes some seconds, because the network is compiled.

    Args:
        model: A file made by `train`, or the name of a model kept by `nucseg-batch models add`; None for the default
            model.
        options: `threshold`, `min_area` (pixels), `augment`, `precision` and `device` of
            `nucseg_batch.SegmentSettings`.

    Raises:
        UsageError: An option is unknown or has an invalid value.
        InputMissingError: There is no such model.
        ModelError: The model file is damaged or not made by `train`.
        DeviceError: There is no such device.
    """

    def __init__(self, model: str | os.PathLike[str] | None = None, **options: Any) -> None:
        from nucseg_batch.network.model_file import load_model
        from nucseg_batch.network.predictor import Predictor as DevicePredictor

        foreign = [name for name in options if name not in OPTIONS]
        if foreign:
            told = " It is given to `predict`." if foreign[0] == "diameter" else ""
            raise UsageError(f"Predictor has no option {foreign[0]}; it has {', '.join(OPTIONS)}.{told}")
        path = None if model is None else find_model(model, "model")
        loaded = load_model(path or default_model(), argument="model")
        self._predictor = DevicePredictor(loaded, settings_of(options))

    def predict(self, image: NDArray[Any], *, diameter: float | None = None) -> NDArray[np.int32]:
        """Segments one image.

        Args:
            image: (height, width) greyscale or (height, width, 3) colour, of any integer or float dtype.
            diameter: Typical width of its nuclei in pixels. None estimates it, which takes about four times as long if
                the model has no size network.

        Returns:
            Label image (height, width): 0 is background, 1..n are nuclei.

        Raises:
            UsageError: The array has another shape or dtype, or values that are not finite.
        """
        return self._segmented(image, diameter).labels.astype(np.int32, copy=False)

    def predict_with_confidence(
        self, image: NDArray[Any], *, diameter: float | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Segments one image like `predict`, and rates each nucleus.

        Args:
            image: As for `predict`.
            diameter: As for `predict`.

        Returns:
            The label image (height, width), and the confidence (n,) of labels 1..n, from 0 to 1, which
            docs/confidence.md defines.

        Raises:
            UsageError: As for `predict`.
        """
        found = self._segmented(image, diameter)
        assert found.support is not None
        labels = found.labels.astype(np.int32, copy=False)
        return labels, nuclei_confidence(labels, found.support, np.arange(1, labels.max() + 1))

    def _segmented(self, image: NDArray[Any], diameter: float | None) -> ScaleTrial:
        pixels = checked_image(image)
        if diameter is None:
            return self._predictor.look(pixels, BEGIN)
        return self._predictor.predict_batch([pixels], self._predictor.diameter / checked_diameter(diameter))[0]
