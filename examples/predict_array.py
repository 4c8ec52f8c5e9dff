"""Labels the nuclei of an image in memory with the model that ships.

python examples/predict_array.py
"""

from __future__ import annotations

from skimage import data

import nucseg_batch


def main() -> None:
    """Labels the nuclei of a field that scikit-image carries, and prints how far each can be trusted."""
    image = data.immunohistochemistry()  # (512, 512, 3)
    predictor = nucseg_batch.Predictor(device="cpu")
    labels, confidence = predictor.predict_with_confidence(image, diameter=16)
    print(f"{labels.max()} nuclei in {labels.shape}; the least certain ones: {sorted(confidence)[:3]}")


if __name__ == "__main__":
    main()
