from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest
from doubles import Threshold
from small_runs import mosaic, picture, small_run

from nucseg_batch.executors import provenance
from nucseg_batch.executors.existing import default_model
from nucseg_batch.files.run.provenance import read_provenance
from nucseg_batch.files.run_layout import RunLayout
from nucseg_batch.results.citation import paragraph, references


def record_of(store: Path) -> dict[str, object]:
    record = read_provenance(store)
    assert record is not None
    return record


def test_results_say_what_they_were_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version, model, settings, input and output: all that a methods section and a repetition need."""
    run = small_run(tmp_path, monkeypatch, threshold=0.4)
    for name, nuclei in (("a.tif", 2), ("b.tif", 3)):
        run.put(name, picture(nuclei))
    run.segment()
    record = record_of(run.store)
    assert record["model"]["sha256"] == hashlib.sha256(default_model().read_bytes()).hexdigest()
    assert record["settings"]["threshold"] == 0.4
    assert record["computed"] == Threshold().machine()
    assert (record["input"]["images"], record["output"]["images"], record["output"]["nuclei"]) == (2, 2, 5)
    for name, path in RunLayout(run.store).tables.items():
        assert record["output"]["sha256"][f"{name}.csv"] == hashlib.sha256(path.read_bytes()).hexdigest()
    attributes = json.loads((run.store / "zarr.json").read_bytes())["attributes"]["nucseg-batch"]
    assert attributes["provenance"] == {name: value for name, value in record.items() if name != "output"}


def test_the_input_is_known_by_its_pixels_and_not_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same images elsewhere, in any order of work, are the same input; one other pixel is another."""
    digests = []
    for place, value, shares in (("one", 150, 1), ("two", 150, 2), ("three", 151, 1)):
        run = small_run(tmp_path / place, monkeypatch)
        run.put("a.tif", picture(2, value=value))
        run.put("large.tif", mosaic())
        for share in range(shares):
            run.segment(shares=shares, share=share if shares > 1 else None)
        digests.append(record_of(run.store)["input"]["sha256"])
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_a_call_after_the_end_writes_the_same_provenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a result like others: damage is noticed, and made good by the same command."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(2))
    run.segment()
    path = RunLayout(run.store).results["provenance.json"]
    before = path.read_bytes()
    path.write_bytes(before[:50])
    assert [one.where for one in run.verify().damage] == ["provenance.json"]
    path.unlink()
    run.segment()
    assert path.read_bytes() == before


def test_labels_in_place_carry_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the store is the user's, and so is its root."""
    from nucseg_batch.files.masks.in_place import register
    from nucseg_batch.files.masks.nodes import read_attributes
    from nucseg_batch.files.masks.store import label_path

    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(2))
    run.segment()
    register(run.store, run.plan, provenance={"tool": "nucseg-batch"})
    label = run.store / label_path(run.plan.label_arrays[0])
    own = read_attributes(label)["nucseg-batch"]
    assert own["provenance"] == {"tool": "nucseg-batch"}
    assert "levels" in own


def test_a_methods_section_is_written_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts only; options that are as ever are not named, others are."""
    run = small_run(tmp_path, monkeypatch, skip_empty=True)
    run.put("a.tif", picture(2))
    run.put("b.tif", picture(3))
    (run.folder / "bad.png").write_bytes(b"no picture")
    run.segment()
    record = record_of(run.store)
    text = paragraph(record)
    for fact in (
        record["version"],
        record["model"]["sha256"][:16],
        "2018 Data Science Bowl",
        "above a probability of 0.5 (tuned with the model)",
        "regions without anything bright skipped",
        "nuclear width of 26 pixels",
        "In 2 images, 5 nuclei were found; 1 image could not be processed.",
        record["input"]["sha256"][:16],
    ):
        assert fact in text, fact
    few = {**record, "output": {**record["output"], "images": 1, "planes": 3, "nuclei": 1, "failures": 0, "missing": 1}}
    assert "In 1 image (3 planes), 1 nucleus was found; 1 plane was not done yet." in paragraph(few)
    assert "channel of the nuclei" not in text
    keys = [one.key for one in references(record)]
    assert "caicedo2019bowl" in keys
    own = {**record, "model": {**record["model"], "name": "mine.keras", "architecture": "mobilenetv2"}}
    assert "the model mine.keras" in paragraph(own)
    assert "Data Science Bowl" not in paragraph(own)
    assert {"caicedo2019bowl", "ronneberger2015unet"}.isdisjoint(one.key for one in references(own))
    for one in references(record):
        assert one.bibtex().count("{") == one.bibtex().count("}")
        assert one.fields["title"] in one.line()


def test_a_methods_section_never_needs_what_an_odd_model_does_not_say(tmp_path: Path) -> None:
    """The card of a model is read without Keras, and only where it is there."""
    from nucseg_batch.network.model_file import MEMBER

    assert provenance.CARD == MEMBER
    with zipfile.ZipFile(default_model()) as archive:
        assert provenance.CARD in archive.namelist()


def test_numbers_that_were_given_are_told_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never as tuned with the model."""
    run = small_run(tmp_path, monkeypatch, threshold=0.35, min_area=77, diameter=31.0)
    run.put("a.tif", picture(2))
    run.segment()
    text = paragraph(record_of(run.store))
    assert "above a probability of 0.35, nuclei of at least 77 pixels" in text
    assert "nuclear width of 31 pixels" in text
    assert "tuned" not in text
    assert "rings" not in text
    assert "further columns" not in text
    record = record_of(run.store)
    around = {"ring": "0.5,2um", "expand": "10", "measure": "shape,neighbours", "neighbour_radius": 40.0}
    assert (
        "nuclei of at least 77 pixels, side in pixels of the regions of large planes 64, rings around nuclei (gap 0.5, "
        "width 2 micrometres; each pixel of the nearest nucleus), cells around nuclei (up to 10 pixels; each pixel of "
        "the nearest nucleus), further columns shape,neighbours, neighbours at most 40 pixels away."
        in paragraph({**record, "settings": {**record["settings"], **around}})
    )
    linked = {**record, "settings": {**record["settings"], "link": "z"}, "output": {**record["output"], "volumes": 7}}
    assert "joined if their intersection over union was at least 0.25, or if 50% of the smaller one" in paragraph(
        linked
    )
    assert "This gave 7 volumes." in paragraph(linked)
    for given, said in {
        ("t", "3"): "time point 3",
        ("t", "0:10:2"): "time points 0 to 8 in steps of 2",
        ("z", "2:12"): "z-slices 2 to 11",
        ("z", "4:5"): "z-slice 4",
        ("z", "2:"): "z-slices from 2",
        ("z", "1:-2"): "z-slices 1:-2",
        ("z", "max"): "maximum projection of the z-slices",
    }.items():
        chosen = {**record, "settings": {**record["settings"], **dict([given])}}
        assert f"{said}, side in pixels" in paragraph(chosen)
    keys = [{one.key for one in references(each)} for each in (linked, record)]
    assert keys[0] - keys[1] == {"stringer2021cellpose"}
    tracked = {**record, "settings": {**record["settings"], "link": "t"}, "output": {**record["output"], "tracks": 9}}
    assert "above 0.5, and all others, gaps of one time point and divisions with laptrack" in paragraph(tracked)
    assert "This gave 9 tracks." in paragraph(tracked)
    keys = [{one.key for one in references(each)} for each in (tracked, record)]
    assert keys[0] - keys[1] == {"fukai2023laptrack"}
    plain = {**record, "model": {**record["model"], "threshold": None, "min_area": None}}
    plain["settings"] = {**record["settings"], "threshold": None, "min_area": None, "region": 3072, "ring": "1,5"}
    assert "Settings: rings around nuclei (gap 1, width 5 pixels;" in paragraph(plain)
    channels = {**record, "channels": {"DAPI": 3, "Hoechst": 1}}
    assert "taken from channel DAPI or Hoechst" in paragraph(channels)


def test_every_pixel_of_a_large_plane_counts_in_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes that are done by regions are known by their windows; one other pixel is another input."""
    digests = []
    for place, value in (("one", 11), ("two", 12)):
        run = small_run(tmp_path / place, monkeypatch)
        pixels = mosaic()
        pixels[70, 3] = value
        run.put("large.tif", pixels)
        run.segment()
        digests.append(record_of(run.store)["input"]["sha256"])
    assert digests[0] != digests[1]


def test_the_shipped_model_is_known_under_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it is as citable as itself."""
    from nucseg_batch.executors import job, local
    from nucseg_batch.settings import RunSettings

    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(2))
    copy = tmp_path / "copied.keras"
    copy.write_bytes(default_model().read_bytes())
    local.run(job.prepare(run.folder, run.store, copy, run.settings, run.notes, options=RunSettings()), run.notes)
    assert record_of(run.store)["model"]["name"] == "default"
