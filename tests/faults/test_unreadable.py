"""Row 15 of the fault matrix: images that cannot be read, cannot be read yet, or come slowly."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import imagecodecs
import tifffile
from faults.harness import FIXED, NOISE, call, digest, image_folder, needs, nuclei, ordinary_rights, rows, run
from zarr_examples import write_image


def test_images_without_the_right_to_read_them_are_failures_or_told(tiny: Path, tmp_path: Path) -> None:
    """A file costs its row; a folder, of which nobody knows what is in it, is told."""
    images = image_folder(tmp_path / "in")
    image_folder(images / "closed", 1).chmod(0)
    (images / "3.png").chmod(0)
    with ordinary_rights():
        done = call("segment", images, tmp_path / "out.zarr", "--model", tiny, *FIXED, code=3)
    (failed,) = rows(tmp_path / "out.zarr", "failures")
    assert (failed["image"], failed["error"]) == ("3.png", "PermissionError")
    assert "1 x folder that cannot be read (Permission denied)" in done.errors
    assert [row["status"] for row in rows(tmp_path / "out.zarr", "images")] == ["ok"] * 3 + ["failed"] + ["ok"] * 2


def test_a_model_without_the_right_to_read_it_is_told(tiny: Path, tmp_path: Path) -> None:
    """It is there, so "no such file" would be wrong."""
    images = image_folder(tmp_path / "in", 1)
    shutil.copy(tiny, tmp_path / "m.keras")
    (tmp_path / "m.keras").chmod(0)
    with ordinary_rights():
        done = call("segment", images, tmp_path / "out.zarr", "--model", tmp_path / "m.keras", code=74)
    assert "Permission denied" in done.refusal
    assert "m.keras" in done.refusal
    assert not (tmp_path / "out.run").exists()


def every_kind(folder: Path) -> list[Path]:
    """Writes two good PNGs, and an image of every reader; the files that hold the pixels of these."""
    image_folder(folder, 2)
    pixels = nuclei(seed=7)
    (folder / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    (folder / "b.jpg").write_bytes(imagecodecs.jpeg8_encode(pixels))
    tifffile.imwrite(folder / "c.tif", pixels, tile=(32, 32), compression="deflate")
    write_image(folder / "d.zarr", pixels, "yx", chunks=(64, 96))
    return [folder / name for name in ("a.png", "b.jpg", "c.tif", "d.zarr/0/c/0/0")]


def with_faults(paths: list[Path], *faults: str) -> tuple[str, ...]:
    """A command that starts with strace, which has system calls on some files go wrong."""
    options = [option for path in paths for option in ("-P", str(path))]
    options += [option for fault in faults for option in ("-e", f"inject={fault}")]
    options += ["-e", "trace=" + ",".join(fault.split(":")[0] for fault in faults)]
    return needs("strace", "--seccomp-bpf", "-f", "-qq", "-o", "/dev/null", *options)


def test_images_that_the_disk_cannot_give_are_failures_of_these_images(tiny: Path, tmp_path: Path) -> None:
    """Each is tried again for seven seconds, and then has its row; the others are done."""
    images, store = tmp_path / "in", tmp_path / "out.zarr"
    strace = with_faults(every_kind(images), "read,pread64:error=EIO")
    done = run("segment", images, store, "--model", tiny, *FIXED, before=strace, code=3)
    assert done.noise <= NOISE
    failed = {row["image"]: row["error"] for row in rows(store, "failures")}
    assert failed == dict.fromkeys(["a.png", "b.jpg", "c.tif", "d.zarr"], "OSError")
    assert all("Input/output error" in row["message"] for row in rows(store, "failures"))
    assert [row["image"] for row in rows(store, "images") if row["status"] == "ok"] == ["0.png", "1.png"]


def test_an_error_that_passes_and_a_slow_disk_change_nothing(tiny: Path, tmp_path: Path) -> None:
    """In each thread the first call fails, those of the plan as those of the run, and all others take a while.

    Threads that zarr starts anew would each fail once, in a row if the machine is busy, so it gets only one.
    """
    images = tmp_path / "in"
    broken = every_kind(images)
    call("segment", images, tmp_path / "usual.zarr", "--model", tiny, *FIXED)
    strace = with_faults(broken, "openat:error=ESTALE:when=1", "read:delay_enter=50000")
    few = {**os.environ, "ZARR_THREADING__MAX_WORKERS": "1"}
    done = run("segment", images, tmp_path / "out.zarr", "--model", tiny, *FIXED, before=strace, environment=few)
    assert done.noise <= NOISE
    assert digest(tmp_path / "out.zarr") == digest(tmp_path / "usual.zarr")
