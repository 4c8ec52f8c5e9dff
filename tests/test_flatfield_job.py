"""`--flatfield`: pixels are divided by the illumination before they are segmented and measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from doubles import Threshold
from illumination import plate, vignette
from numpy.typing import NDArray
from small_runs import SmallRun, small_run

from nucseg_batch.errors import InputMissingError, MismatchError, NothingToDoError
from nucseg_batch.executors.output import begin
from nucseg_batch.files.find.discover import discover
from nucseg_batch.files.flat_fields import FLAT_FIELDS
from nucseg_batch.files.opened import ImageReader

SHAPE = (121, 163)
COUNT = 12


class Above(Threshold):
    """Nuclei are what is far above the background, in corrected images and in others."""

    def bright(self, plane: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(plane > 1000)


def run_of(place: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> SmallRun:
    """A run over COUNT images with one illumination."""
    run = small_run(place, monkeypatch, **{"region": 256, **settings})
    for number, image in enumerate(plate(COUNT, vignette(SHAPE), seed=3)):
        run.put(f"{number:02d}.tif", image)
    return run


def two_channels(place: Path, monkeypatch: pytest.MonkeyPatch, region: int) -> SmallRun:
    """A finished run over images of DAPI and GFP, each with an illumination of its own."""
    run = small_run(place, monkeypatch, region=region, ring="1,4", measure="intensity", flatfield="estimate")
    light = vignette(SHAPE)
    for number, planes in enumerate(zip(plate(9, light, seed=3), plate(9, light[::-1], seed=4), strict=True)):
        about = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
        tifffile.imwrite(run.folder / f"{number}.ome.tif", np.stack(planes), metadata=about, ome=True)
    run.segment(Above(margin=28))
    return run


def nuclei(run: SmallRun) -> list[dict[str, str]]:
    with open(run.store.with_suffix(".nuclei.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(run: SmallRun, name: str) -> NDArray[np.float64]:
    return np.array([float(row[name]) for row in nuclei(run)])


def images(run: SmallRun) -> list[dict[str, str]]:
    with open(run.store.with_suffix(".images.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def variation(values: NDArray[np.float64]) -> float:
    return float(values.std() / values.mean())


@pytest.mark.parametrize("given", [True, False], ids=["file", "estimate"])
def test_equal_nuclei_are_equally_bright_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    """Their intensities varied with their place more than with anything else; the masks are the same."""
    np.save(tmp_path / "field.npy", vignette(SHAPE) * 12)
    field = str(tmp_path / "field.npy") if given else "estimate"
    plain = run_of(tmp_path / "plain", monkeypatch)
    plain.segment(Above())
    even = run_of(tmp_path / "even", monkeypatch, flatfield=field)
    even.segment(Above())
    assert len(nuclei(plain)) == len(nuclei(even)) > 100
    before, after = (variation(column(run, "intensity_mean")) for run in (plain, even))
    assert before > 0.11
    assert after < 0.08  # nuclei were made with 5 %, on backgrounds of 210 to 420 of 2300
    light = vignette(SHAPE)[tuple(column(plain, f"centroid-{axis}").astype(int) for axis in (0, 1))]
    brightness = [np.corrcoef(light, column(run, "intensity_mean"))[0, 1] for run in (plain, even)]
    assert brightness[0] > 0.9
    assert abs(brightness[1]) < 0.2


def test_rings_other_channels_and_regions_are_corrected_like_the_whole_plane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number of a nucleus is what it is where the plane is done as a whole."""
    whole = two_channels(tmp_path / "whole", monkeypatch, region=256)
    parts = two_channels(tmp_path / "parts", monkeypatch, region=64)
    one, other = (
        {tuple(row[name] for name in ("image", "centroid-0", "centroid-1")): row for row in nuclei(run)}
        for run in (whole, parts)
    )
    assert one.keys() == other.keys()
    assert len(one) > 60
    unequal = 0
    for key, row in one.items():
        compared = row.keys() - {"image", "t", "z", "label"}
        if row["ring_area"] != other[key]["ring_area"]:  # pixels as near to another nucleus go by the label
            compared = {name for name in compared if not name.startswith(("ring", "intensity_ratio"))}
            unequal += 1
        for name in compared:
            empty = row[name] == other[key][name] == ""
            assert empty or float(other[key][name]) == pytest.approx(float(row[name]), rel=1e-6), name
    assert unequal < len(one) / 4
    for first, second in zip(images(whole), images(parts), strict=True):
        for name in ("intensity_background", "saturated_fraction", "sharpness"):
            assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-9), name
    fields = json.loads((whole.journal.folder / FLAT_FIELDS / "fields.json").read_text())
    assert [(field["channel"], field["planes"]) for field in fields] == [("DAPI", 9), ("GFP", 9)]
    place = tuple(column(whole, f"centroid-{axis}").astype(int) for axis in (0, 1))
    assert abs(np.corrcoef(vignette(SHAPE)[::-1][place], column(whole, "ring_intensity_min-GFP"))[0, 1]) < 0.3


def test_shares_and_a_run_that_is_resumed_have_the_bytes_of_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The field is estimated once, from all images; a later call reads it even if images have changed since."""
    one = run_of(tmp_path / "one", monkeypatch, flatfield="estimate")
    one.segment(Above())
    shares = run_of(tmp_path / "shares", monkeypatch, flatfield="estimate")
    for share in (1, 0, 2):
        shares.segment(Above(), shares=3, share=share)
    assert shares.results() == one.results()
    field = (one.journal.folder / FLAT_FIELDS / "0.npy").read_bytes()
    before = one.results()
    (tmp_path / "aside").write_bytes((one.folder / "05.tif").read_bytes())
    one.put("05.tif", plate(1, np.ones(SHAPE), seed=99)[0])
    assert one.segment(Above()).new_planes == 1
    assert (one.journal.folder / FLAT_FIELDS / "0.npy").read_bytes() == field
    one.put("05.tif", tifffile.imread(tmp_path / "aside"))
    one.segment(Above())
    changed = {name for name, content in one.results().items() if before[name] != content}
    assert changed <= {"out.provenance.json", "out.zarr/zarr.json"}  # the time of no image is in them


def test_shares_without_images_need_no_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may come first; `finish` of a run that has not begun does not miss it either."""
    run = run_of(tmp_path, monkeypatch, flatfield="estimate")
    done = [run.segment(Above(), shares=3, share=share).new_planes for share in (0, 2, 1)]
    assert sorted(done) == [0, 0, COUNT]
    assert len(nuclei(run)) > 100
    other = small_run(tmp_path / "other", monkeypatch, flatfield="estimate")
    other.settings = run.settings
    for path in run.folder.iterdir():
        other.put(path.name, tifffile.imread(path))
    begin(other.prepared(), other.notes)
    assert len(other.finish().missing) == COUNT


def test_a_run_that_died_before_its_scales_were_fixed_estimates_the_same_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, monkeypatch, flatfield="estimate")
    run.segment(Above())
    folder = run.journal.folder / FLAT_FIELDS
    field = (folder / "0.npy").read_bytes()
    (folder / "fields.json").unlink()
    (folder / "0.npy").write_bytes(b"half")
    for marker in (run.journal.folder / "units").iterdir():
        marker.unlink()
    run.segment(Above())
    assert (folder / "0.npy").read_bytes() == field


def test_images_that_the_field_does_not_fit_are_skipped_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, monkeypatch)
    run.put("other.tif", plate(1, np.ones((90, 110)), seed=1)[0])
    tifffile.imwrite(tmp_path / "field.tif", vignette(SHAPE).astype(np.float32))
    run.with_settings(flatfield=str(tmp_path / "field.tif"))
    (failure,) = run.segment(Above()).failures
    assert (failure.image, failure.stage) == ("other.tif", "plan")
    assert "it has 90 x 110 pixels, but the flat field has 121 x 163" in failure.message
    other = small_run(tmp_path / "estimate", monkeypatch, flatfield="estimate")
    other.put("a.tif", plate(1, np.ones((90, 110)), seed=1)[0])
    with pytest.raises(NothingToDoError, match="from at least 8 planes of one size, but 1 has 90 x 110 pixels"):
        other.segment(Above())
    assert not other.store.exists()


def test_a_field_needs_a_plane_for_each_channel_or_one_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path, monkeypatch)
    np.save(tmp_path / "field.npy", np.ones((2, *SHAPE)))
    run.with_settings(flatfield=str(tmp_path / "field.npy"))
    with pytest.raises(NothingToDoError, match="it has 1 channel, but the flat field has 2"):
        run.segment(Above())


def test_a_run_is_resumed_with_the_same_field_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "field.npy"
    np.save(path, vignette(SHAPE))
    run = run_of(tmp_path, monkeypatch, flatfield=str(path))
    run.segment(Above())
    assert run.segment(Above()).new_planes == 0
    np.save(path, np.ones(SHAPE))
    with pytest.raises(MismatchError, match=r"\(--flatfield: the file has changed since the run began\)"):
        run.segment(Above())
    path.unlink()
    with pytest.raises(InputMissingError, match="there is no such file"):
        run.segment(Above())
    run.with_settings(flatfield="estimate")
    with pytest.raises(MismatchError, match=r"\(--flatfield: field\.npy in the run, estimate now\)"):
        run.segment(Above())


def test_a_saturated_camera_is_seen_behind_the_correction_and_pixels_are_verified_as_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Corrected, equal pixels differ."""
    run = run_of(tmp_path, monkeypatch, flatfield="estimate", with_images=True)
    image = plate(1, vignette(SHAPE), seed=1)[0]
    image[10:40, 20:60] = 65535
    run.put("05.tif", image)
    run.segment(Above())
    row = next(row for row in images(run) if row["image"] == "05.tif")
    assert float(row["saturated_fraction"]) == pytest.approx(30 * 40 / image.size)
    assert run.segment(Above(), verify_inputs="full").new_planes == 0
    assert not run.verify().damage


def test_without_the_option_pixels_are_the_array_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is copied, and no more memory is counted."""
    run = run_of(tmp_path, monkeypatch)
    run.segment(Above())
    plane = run.units[0].planes[0]
    with ImageReader(run.folder, run.settings) as reader:
        pixels = reader.read(plane)
        assert reader.corrected(pixels, plane.image) is pixels
        assert reader.held_bytes(plane.image) == plane.image.plane_bytes
    assert not (run.journal.folder / FLAT_FIELDS).exists()
    provenance = json.loads(run.store.with_suffix(".provenance.json").read_text())
    assert (provenance["flatfield"], provenance["settings"]["flatfield"]) == (None, None)


def test_a_field_in_the_folder_of_images_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the folder is reached by a link, and if the run is resumed."""
    run = run_of(tmp_path / "run", monkeypatch)
    path = run.folder / "flat.tif"
    tifffile.imwrite(path, vignette(SHAPE).astype(np.float32))
    (tmp_path / "link").symlink_to(run.folder)
    for name in (path, tmp_path / "link" / "flat.tif"):
        found = discover(str(run.folder), flat_field=name)
        assert "flat.tif" not in {entry.key for entry in found.entries}
        assert found.skipped == {"file of --flatfield": 1}
    assert len(discover(str(run.folder)).entries) == COUNT + 1
    with pytest.raises(NothingToDoError, match="skipped: 1 x file of --flatfield"):
        discover(str(path), flat_field=path)
    run.with_settings(flatfield=str(path))
    assert run.segment(Above()).new_planes == COUNT
    assert run.segment(Above()).new_planes == 0
    assert [row["image"] for row in images(run)] == [f"{number:02d}.tif" for number in range(COUNT)]
