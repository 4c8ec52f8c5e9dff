from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import disks, fluorescence
from small_runs import picture, small_run

import nucseg_batch
from nucseg_batch.api.segment import settings_of
from nucseg_batch.errors import InputMissingError, UsageError
from nucseg_batch.executors import local
from nucseg_batch.settings import SegmentSettings


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of three images, one of them without nuclei, and one that failed."""
    run = small_run(tmp_path, monkeypatch)
    for name, nuclei in (("a.tif", 2), ("b.tif", 0), ("c1.tif", 3)):
        run.put(name, picture(nuclei))
    (run.folder / "bad.png").write_bytes(b"no picture")
    run.segment()
    return run.store


def test_everything_public_is_there_and_nothing_is_loaded_before_it_is_used() -> None:
    """`import nucseg_batch` is what every program and the command line begin with."""
    program = (
        "import sys, nucseg_batch\n"
        "assert not {'keras', 'zarr', 'numpy', 'pandas'} & set(sys.modules), sorted(sys.modules)\n"
        "for name in nucseg_batch.__all__: getattr(nucseg_batch, name)\n"
        "assert 'keras' not in sys.modules\n"
        "assert set(dir(nucseg_batch)) == set(nucseg_batch.__all__)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    with pytest.raises(AttributeError, match="nothing"):
        _ = nucseg_batch.nothing


def test_a_collection_is_segmented_as_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same store and tables; a second call has nothing to do."""
    run = small_run(tmp_path, monkeypatch)
    run.put("a.tif", picture(2))
    (run.folder / "bad.png").write_bytes(b"no picture")
    told: list[str] = []
    result = nucseg_batch.segment(run.folder, run.store, diameter=26.0, region=64, tell=told.append)
    assert (result.images, result.planes, result.nuclei) == (1, 1, 2)
    assert [failure.image for failure in result.failures] == ["bad.png"]
    assert all(path.is_file() for path in result.tables.values())
    assert any("computing" in line for line in told)
    assert nucseg_batch.open_masks(result.store)["a.tif"].max() == 2
    monkeypatch.setattr(local, "load_predictor", lambda *_: pytest.fail("nothing is to be segmented"))
    assert nucseg_batch.segment(run.folder, run.store, diameter=26.0, region=64) == result


def test_options_that_there_are_not_are_refused_with_the_nearest(tmp_path: Path) -> None:
    """A misspelt option must not be ignored, nor end in a traceback that names our insides."""
    with pytest.raises(UsageError, match="did you mean diameter"):
        nucseg_batch.segment(tmp_path, tmp_path / "out.zarr", diamter=26)
    with pytest.raises(UsageError, match=r"^threshold must be between 0 and 1, but is 7"):
        nucseg_batch.segment(tmp_path, tmp_path / "out.zarr", threshold=7)
    with pytest.raises(UsageError, match=r"^min_area must be 0 or more"):
        nucseg_batch.Predictor(min_area=-1)
    with pytest.raises(UsageError, match="zarr"):
        nucseg_batch.segment(tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="in_place"):
        nucseg_batch.segment(tmp_path)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_tables_come_as_data_frames_with_types(finished: Path, library: str) -> None:
    """Numbers as numbers, what is not there as missing, names as text."""
    pytest.importorskip(library)
    images = nucseg_batch.read_images(finished, library=library)
    with open(finished.with_suffix(".images.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(images.columns) == list(rows[0])
    assert list(images["image"]) == [row["image"] for row in rows] == ["a.tif", "b.tif", "bad.png", "c1.tif"]
    nuclei = nucseg_batch.read_nuclei(finished, columns=["label", "area"], pattern="[ac]*.tif", library=library)
    assert list(nuclei.columns) == ["label", "area"]
    assert [int(label) for label in nuclei["label"]] == [1, 2, 1, 2, 3]
    assert int(nuclei["area"].sum()) == 5 * 20
    assert [str(count) for count in images["nuclei"]] == ["2", "0", {"pandas": "<NA>", "polars": "None"}[library], "3"]
    assert len(nucseg_batch.read_nuclei(finished, pattern="nothing*", library=library)) == 0


def test_what_is_missing_is_said(finished: Path, tmp_path: Path) -> None:
    """The table, the column or the library."""
    with pytest.raises(InputMissingError, match=r"other\.nuclei\.csv"):
        nucseg_batch.read_nuclei(tmp_path / "other.zarr")
    with pytest.raises(InputMissingError, match=r"give its store, .*out\.zarr"):
        nucseg_batch.read_nuclei(finished.with_suffix(".nuclei.csv"))
    with pytest.raises(UsageError, match=r"no column aera; it has image,"):
        nucseg_batch.read_nuclei(finished, columns=["aera"])
    with pytest.raises(UsageError, match="library"):
        nucseg_batch.read_nuclei(finished, library="numpy")


def test_a_predictor_labels_arrays_of_any_type() -> None:
    """A program has images in memory; types that the network does not take are converted, others refused."""
    predictor = nucseg_batch.Predictor(device="cpu")
    truth = disks((131, 157), [(40, 40), (80, 110), (100, 45)], 13)
    image = fluorescence(truth, seed=4)
    labels, confidence = predictor.predict_with_confidence(image, diameter=26)
    assert labels.shape == image.shape
    assert confidence.shape == (3,)
    assert ((confidence > 0.6) & (confidence <= 1)).all()
    for other in (image.astype(np.int64) * 100, image / 255, np.dstack([image] * 3)):
        np.testing.assert_array_equal(predictor.predict(other, diameter=26) > 0, labels > 0)
    assert predictor.predict(image).max() == 3
    for wrong in (image[0], np.zeros((3, 5, 7, 9)), np.zeros((0, 5)), image.astype(complex), image * np.nan):
        with pytest.raises(UsageError, match="image"):
            predictor.predict(wrong)
    with pytest.raises(UsageError, match="diameter"):
        predictor.predict(image, diameter=0)


def test_masks_are_scored_from_python(finished: Path) -> None:
    """A run against itself."""
    result = nucseg_batch.evaluate(finished, finished)
    assert result.groups["all"].image_mean["mean_ap"] == 1
    assert len(list(result.rows())) == 3


def test_a_predictor_takes_no_option_that_it_would_ignore() -> None:
    """A width that is silently passed over gives other masks than were asked for."""
    with pytest.raises(UsageError, match=r"no option diameter; .*given to `predict`"):
        nucseg_batch.Predictor(diameter=52)
    with pytest.raises(UsageError, match="no option channel"):
        nucseg_batch.Predictor(channel="red")


def test_confidence_is_of_the_label_of_its_place() -> None:
    """The k-th value is that of label k."""
    from nucseg_batch.arrays.confidence import nuclei_confidence

    predictor = nucseg_batch.Predictor(device="cpu")
    labels = disks((131, 157), [(40, 40), (80, 110), (100, 45)], 13)
    image = fluorescence(labels, seed=4).astype(np.float32)
    image[:, 80:] = image[:, 80:] * 0.15 + np.random.default_rng(1).normal(0, 9, image[:, 80:].shape)
    found, confidence = predictor.predict_with_confidence(image, diameter=26)
    support = predictor._segmented(image, 26).support
    assert support is not None
    assert confidence.size >= 2
    assert np.ptp(confidence) > 0.01
    for label in range(1, found.max() + 1):
        np.testing.assert_allclose(confidence[label - 1], nuclei_confidence(found, support, np.array([label]))[0])


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({"channel": 0, "t": np.int64(3)}, {"channel": "0", "t": "3"}),
        ({"expand": 3.5}, {"expand": "3.5"}),
        ({"expand": (3,), "ring": (1, 5.5)}, {"expand": "3", "ring": "1,5.5"}),
        ({"ring": ["0.5", "2um"]}, {"ring": "0.5,2um"}),
        ({"diameter": np.float32(26.5), "min_area": 30.0}, {"diameter": 26.5, "min_area": 30}),
        ({"flatfield": Path("flat.tif"), "strict": np.True_}, {"flatfield": "flat.tif", "strict": True}),
        ({"memory": 4_000_000_000, "diameter": None}, {"memory": "4000000000", "diameter": None}),
    ],
)
def test_values_come_as_python_has_them(given: dict[str, Any], settings: dict[str, Any]) -> None:
    """Numbers and tuples stand for text that the command takes, those of numpy for Python's own."""
    found = settings_of(given)
    assert found == SegmentSettings(**settings)
    assert {name: type(getattr(found, name)) for name in given} == {n: type(value) for n, value in settings.items()}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ring": 5}, r"^ring must be GAP,WIDTH, such as 1,5 .* but is '5'\.$"),
        ({"ring": {"gap": 1}}, "^ring must be text, a number, or several of these in a list, but is {'gap': 1}"),
        ({"expand": (1, 2)}, r"^expand must be a distance above 0, .* but is '1,2'\.$"),
        ({"expand": True}, "^expand must be text, a number, .* but is True"),
        ({"neighbour_radius": "x"}, r"^neighbour_radius must be a number, but is 'x'\.$"),
        ({"diameter": "26"}, "^diameter must be a number, but is '26'"),
        ({"min_area": 2.5}, "^min_area must be a whole number, but is 2.5"),
        ({"region": None}, "^region must be a whole number, but is None"),
        ({"strict": "yes"}, "^strict must be True or False, but is 'yes'"),
        ({"precision": 3}, "^precision must be text, but is 3"),
        (
            {"flatfield": np.ones((3, 5))},
            r"^flatfield must be the path of an image file, or 'estimate', but is an array of shape \(3, 5\); save",
        ),
    ],
)
def test_values_of_a_wrong_type_are_told_as_such(tmp_path: Path, given: dict[str, Any], told: str) -> None:
    """In a sentence that names the option and what it takes, before anything is looked for."""
    with pytest.raises(UsageError, match=told):
        nucseg_batch.segment(tmp_path, tmp_path / "out.zarr", **given)
