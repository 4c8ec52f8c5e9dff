"""Examples are run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import disks, fluorescence

EXAMPLES = Path(__file__).parents[1] / "examples"
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=280, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_training_example_makes_a_model_and_uses_it(one_image: Path, tmp_path: Path) -> None:
    """From annotated images to masks in one script; one short pass is enough to see that it runs."""
    for kind in ("images", "labels"):
        (tmp_path / "annotated" / kind).mkdir(parents=True)
    for i in range(4):
        labels = disks((64, 64), [(20, 20), (44, 40 + i)], 9)
        pair = {"images": fluorescence(labels, seed=i), "labels": labels.astype(np.uint16)}
        for kind, pixels in pair.items():
            (tmp_path / "annotated" / kind / f"{i}.png").write_bytes(imagecodecs.png_encode(pixels))
    options = ["--epochs", 1, "--steps", 2, "--batch-size", 2, "--crop", 64]
    out = tmp_path / "out.zarr"
    run(EXAMPLES / "train_and_segment.sh", tmp_path / "annotated", one_image, out, *options)
    assert out.with_suffix(".keras").is_file()
    assert len(out.with_suffix(".images.csv").read_text().splitlines()) == 2


def test_the_example_of_python_segments_and_reads_back(one_image: Path, tmp_path: Path) -> None:
    """What a program does with a collection."""
    pytest.importorskip("pandas")
    said = run(sys.executable, EXAMPLES / "python_api.py", one_image, tmp_path / "out.zarr")
    assert "2 nuclei in 1 images, 0 failed" in said
    assert "small8.png (67, 83) 2" in said


def test_the_example_of_an_array_finds_nuclei() -> None:
    """What a program does with an image in memory."""
    said = run(sys.executable, EXAMPLES / "predict_array.py")
    assert int(said.split()[0]) > 50
