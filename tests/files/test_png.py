"""PNG written band by band."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from nucseg_batch.files.png import write_png


@pytest.mark.parametrize(("dtype", "shape"), [("u1", (37, 23)), ("u2", (37, 23)), ("u1", (37, 23, 3))])
def test_bands_become_one_picture_with_its_text(dtype: str, shape: tuple[int, ...]) -> None:
    """Two readers that share no code see the pixels, and people see where the file is from."""
    pixels = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    file = io.BytesIO()
    write_png(file, (37, 23), [pixels[:11], pixels[11:12], pixels[12:]], {"Software": "nuclei ü", "image": "a.tif"})
    assert (imagecodecs.png_decode(file.getvalue()) == pixels).all()
    with Image.open(io.BytesIO(file.getvalue())) as picture:
        assert (np.asarray(picture) == pixels).all()
        assert picture.text == {"Software": "nuclei ü", "image": "a.tif"}


def test_missing_rows_are_an_error_and_not_a_damaged_file(tmp_path: Path) -> None:
    """Readers would show such a file as a picture with a black foot."""
    with pytest.raises(ValueError, match="was given 2"):
        write_png(io.BytesIO(), (3, 5), [np.zeros((2, 5), np.uint8)], {})
