"""Images for a network that runs in another program, as `nucseg-batch models export` writes it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from nucseg_batch.api.segment import PathLike
from nucseg_batch.api.values import checked_diameter, checked_image
from nucseg_batch.arrays.prepared import PreparedImage, prepared
from nucseg_batch.executors.existing import default_model
from nucseg_batch.executors.kept_models import find_model
from nucseg_batch.model_record import read_record


def prepare_image(image: NDArray[Any], *, diameter: float, model: PathLike | None = None) -> PreparedImage:
    """Prepares an image for the network of a model that `nucseg-batch models export` wrote, without loading Keras.

    `labels` of the result makes labels of the network's answer. They are those of `Predictor(model).predict(image,
    diameter=diameter)` in float32, but for rounding in the network.

    Args:
        image: (height, width) greyscale or (height, width, 3) colour, of any integer or float dtype.
        diameter: Typical width of its nuclei in pixels. The exported file does not have the size network that estimates
            it otherwise.
        model: A file made by `train`, or the name of a model kept by `nucseg-batch models add`; None for the default
            model. It must be the one that was exported.

    Returns:
        The `pixels` for the network, (1, 1 or 3, height, width) float32, and the way to labels.

    Raises:
        UsageError: The array has another shape or dtype, or values that are not finite, or the diameter is invalid.
        InputMissingError: There is no such model.
        ModelError: The model file is damaged or not made by `train`.
    """
    path = None if model is None else find_model(model, "model")
    record = read_record(path or default_model(), argument="model")
    return prepared(checked_image(image), record, record.diameter / checked_diameter(diameter))
