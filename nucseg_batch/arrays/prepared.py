"""What lies before and after a network that runs elsewhere, such as from an ONNX file: pixels in, labels out.

The steps are those of `network.program`, in numpy: the range of intensities, the scale, mirrored padding; then the
separation of nuclei and the way back to the image's own grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.geometry import ResampleGeometry, padded_batch
from nucseg_batch.arrays.host_instances import BY_TASK, NetworkOutput, on_native_grid
from nucseg_batch.arrays.normalize import apply_range
from nucseg_batch.arrays.outputs import Output
from nucseg_batch.arrays.ranges import intensity_range
from nucseg_batch.arrays.scale import numbered
from nucseg_batch.errors import UsageError
from nucseg_batch.model_record import ModelRecord


@dataclass(frozen=True)
class PreparedImage:
    """An image as an exported network takes it, and the way from the network's answer to labels."""

    pixels: NDArray[np.float32]
    """(1, 1 or 3, height, width): normalised, rescaled, and padded to multiples of 32 pixels."""
    record: ModelRecord
    """How to use the model."""
    geometry: ResampleGeometry
    """The image's own shape, its shape at the network's scale, and what both are padded to."""

    def labels(self, output: NDArray[Any]) -> NDArray[np.int32]:
        """Labels of the image from what the network answers for `pixels`.

        Args:
            output: (1, channels, height, width) float32 with the sides of `pixels`: probability of the foreground, and
                the offsets along y and x to the centre of the nucleus, in pixels.

        Returns:
            Label image (height, width) of the image's own shape: 0 is background, 1..n are nuclei.

        Raises:
            UsageError: The output has another shape.
        """
        task = self.record.task
        channels = len(Output) if task == "instances" else 1
        expected = (1, channels, *self.pixels.shape[2:])
        if np.shape(output) != expected:
            raise UsageError(f"output must have the shape {expected}, but has {np.shape(output)}.")
        values = np.ascontiguousarray(np.moveaxis(np.asarray(output, np.float32)[0], 0, -1))
        answer = NetworkOutput(values, values[..., Output.FOREGROUND], outputs=channels)
        frame, threshold = self.geometry, self.record.threshold
        one = BY_TASK[task](answer, *frame.scaled, threshold=threshold, min_area=self.record.min_area)
        if not frame.is_native:
            rows, columns, *near = frame.back()
            probability = rows @ values[..., Output.FOREGROUND] @ columns.T
            one = on_native_grid(one, answer, probability, *near, threshold=threshold)
        height, width = frame.native
        labels = one.labels[:height, :width]
        return labels if frame.is_native else numbered(labels)


def prepared(pixels: NDArray[Any], record: ModelRecord, scale: float) -> PreparedImage:
    """An image (height, width) or (height, width, 3) of uint8, uint16 or float32 for the network of a model.

    scale: by which it is enlarged, so that nuclei have the width that the model knows.
    """
    frame = ResampleGeometry.of(pixels.shape[:2], scale)
    padded = padded_batch([pixels], frame.native_bucket, 1)
    image: NDArray[Any] = np.moveaxis(apply_range(padded, *intensity_range(pixels, record.intensities)), -1, 1)
    if not frame.is_native:
        rows, columns = frame.there()
        image = rows @ image @ columns.T
    return PreparedImage(np.ascontiguousarray(image), record, frame)
