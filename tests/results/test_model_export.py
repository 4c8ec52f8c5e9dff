"""Models for other programs: what they answer there is what they answer here, and labels made of it are ours."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from command import call, run
from skimage import data
from skimage.color import rgb2hed
from skimage.io import imread, imsave

import nucseg_batch
from nucseg_batch.arrays.prepared import prepared
from nucseg_batch.errors import ModelError, UsageError
from nucseg_batch.executors.existing import default_model
from nucseg_batch.network.architectures import build, network_spec
from nucseg_batch.network.exported import check_answer, exported_network
from nucseg_batch.network.model_file import Model, ModelInfo, load_model, save_model
from nucseg_batch.results.model_export import description, writing

if missing := writing.missing_packages("bioimageio"):
    pytest.skip(f"needs {', '.join(missing)}: pip install 'nucseg-batch[models]'", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

DIAMETER = 16
"""Width in pixels of the nuclei of the image."""
EXACT: dict[str, Any] = {"device": "cpu", "precision": "float32"}


def answer_of(model: Path, pixels: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (output,) = session.run(["nuclei"], {"image": pixels})
    return np.asarray(output)


def package_answer(unpacked: Path, pixels: np.ndarray) -> np.ndarray:
    """What bioimageio.core predicts for pixels that are prepared."""
    from bioimageio.core import load_model_description, predict

    model: Any = load_model_description(unpacked / "rdf.yaml")
    shown = np.broadcast_to(pixels, (1, 3, *pixels.shape[2:]))
    sample = predict(model=model, inputs={"image": shown}, skip_preprocessing=True)
    return np.asarray(sample.members["nuclei"].data.to_numpy())


def made(folder: Path, info: ModelInfo, image: np.ndarray | None = None) -> Path:
    """A model of random weights, always the same; image: one of which it finds about half to be foreground."""
    keras.utils.set_random_seed(5)
    path = folder / f"{info.architecture}-{info.task}.keras"
    model = Model(build(info.network, normalise=True), info)
    if image is not None:
        seen = prepared(image, info, info.diameter / DIAMETER).pixels
        level = float(np.median(exported_network(model).answer(seen)[:, 0]))
        model = dataclasses.replace(model, info=dataclasses.replace(info, threshold=level))
    save_model(model, path)
    return path


def assert_alike(labels: np.ndarray, expected: np.ndarray) -> None:
    """Foreground of a network of random weights, many of whose pixels are near the threshold: rounding moves some."""
    assert 0.05 < (expected > 0).mean() < 0.95
    assert ((labels > 0) != (expected > 0)).mean() < 0.005


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a real image of stained tissue, 233 x 301, and its haematoxylin as a grey image of 16 bits."""
    folder = tmp_path_factory.mktemp("real") / "in"
    folder.mkdir()
    colour = data.immunohistochemistry()[150:383, 105:406]
    stain = np.clip(rgb2hed(colour)[..., 0], 0, None)
    imsave(folder / "colour.png", colour, check_contrast=False)
    imsave(folder / "grey.tif", (stain * 60000 + 100).astype(np.uint16), check_contrast=False)
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model as a bioimage.io package, by the command, in a process of its own."""
    path = tmp_path_factory.mktemp("package") / "default.zip"
    run("models", "export", "default", path, "--format", "bioimageio")
    return path


@pytest.fixture(scope="module")
def unpacked(package: Path) -> Path:
    folder = package.with_suffix("")
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("diameter", [DIAMETER, 26.0])
def test_labels_of_the_onnx_answer_are_those_of_segment(
    images: Path, unpacked: Path, tmp_path: Path, diameter: float
) -> None:
    """For colour and grey, rescaled and at the network's own scale; also of the answer that bioimageio.core gives."""
    done = nucseg_batch.segment(images, tmp_path / "out.zarr", diameter=diameter, **EXACT)
    masks = nucseg_batch.open_masks(done.store)
    for name in ("colour.png", "grey.tif"):
        shown = nucseg_batch.prepare_image(imread(images / name), diameter=diameter)
        labels = shown.labels(answer_of(unpacked / "model.onnx", shown.pixels))
        assert labels.max() > 10
        assert np.array_equal(labels, masks[name])
        if diameter == DIAMETER:
            assert np.array_equal(shown.labels(package_answer(unpacked, shown.pixels)), masks[name])


def test_the_example_in_the_readme_of_a_package_gives_the_labels_of_segment(
    images: Path, unpacked: Path, tmp_path: Path
) -> None:
    """It is run as it stands, with the files that the package holds; docs/model-export.md shows the same lines."""
    assert description.EXAMPLE in (unpacked / "README.md").read_text(encoding="utf-8")
    for name in ("model.onnx", "model.keras"):
        (tmp_path / name).symlink_to(unpacked / name)
    imsave(tmp_path / "image.png", imread(images / "colour.png"), check_contrast=False)
    program = description.EXAMPLE + "import numpy\nnumpy.save('labels.npy', labels)\n"
    program += "import sys\nassert 'keras' not in sys.modules\n"
    environment = os.environ | {"PYTHONPATH": str(Path(nucseg_batch.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, timeout=120)
    expected = nucseg_batch.Predictor(**EXACT).predict(imread(images / "colour.png"), diameter=20)
    assert np.array_equal(np.load(tmp_path / "labels.npy"), expected)


def test_the_benchmark_of_ranges_runs_to_its_end(images: Path, unpacked: Path, tmp_path: Path) -> None:
    """A line for each kind of image and each range; labels of the network at another scale are half as good."""
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    image = imread(images / "colour.png")
    imsave(tmp_path / "data" / "images" / "a.png", image, check_contrast=False)
    labels = nucseg_batch.Predictor(**EXACT).predict(image, diameter=DIAMETER).astype(np.uint16)
    imsave(tmp_path / "data" / "labels" / "a.png", labels, check_contrast=False)
    (tmp_path / "data" / "index.csv").write_text("id,split,modality\na,val,histology\n")
    script = Path(__file__).parents[1] / "benchmarks" / "exported_range.py"
    environment = os.environ | {"PYTHONPATH": str(Path(nucseg_batch.__file__).parents[1])}
    command = [sys.executable, str(script), str(unpacked / "model.onnx"), str(tmp_path / "data")]
    done = subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines() if "AP@.50" in line]
    assert [(line[0], line[1]) for line in lines] == [("histology", "1")] * 2
    assert float(lines[0][lines[0].index("AP@.50") + 1]) > 0.3


def test_the_package_of_the_default_model_says_whose_it_is_and_how_it_is_used(package: Path, unpacked: Path) -> None:
    """It passes the test of bioimageio.core, and the model file in it is the one that was exported."""
    from bioimageio.core import load_model_description

    program = f"from bioimageio.core import test_model; assert test_model({str(package)!r}).status == 'passed'"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240)
    model: Any = load_model_description(unpacked / "rdf.yaml")
    assert [author.name for author in model.authors] == ["The nucseg-batch developers"]
    assert model.license == "BSD-3-Clause"
    assert "10.1007/978-3-319-24574-4_28" in [str(one.doi) for one in model.cite]
    assert [str(axis.id) for axis in model.outputs[0].axes] == ["batch", "channel", "y", "x"]
    assert list(model.outputs[0].axes[1].channel_names) == ["foreground", "offset_y", "offset_x"]
    assert {"fluorescence-light-microscopy", "whole-slide-imaging", "instance-segmentation"} <= set(model.tags)
    info = load_model(default_model()).info
    assert {(axis.size.min, axis.size.step) for axis in model.inputs[0].axes[2:]} == {(64, info.network.stride)}
    said = model.config.model_dump()["nucseg_batch"]
    assert (said["diameter"], said["threshold"], said["min_area"]) == (info.diameter, info.threshold, info.min_area)
    assert (unpacked / "model.keras").read_bytes() == default_model().read_bytes()


@pytest.mark.parametrize("architecture", ["default", "unet", "mobilenetv2", "mobilenetv3"])
def test_every_architecture_answers_in_onnx_as_in_keras(architecture: Any, images: Path, tmp_path: Path) -> None:
    """And the file says how it is to be used."""
    import onnx

    widths = {"default": (2, 3), "unet": (2, 3, 4)}.get(architecture)
    spec = network_spec(architecture, "instances", widths)
    info = ModelInfo(architecture, spec.widths, diameter=19.0, min_area=7, intensities="percentiles")
    image, out = imread(images / "grey.tif")[:97, :131], tmp_path / "net.onnx"
    model = made(tmp_path, info, image)
    call("models", "export", model, out, "--format", "onnx")
    shown = nucseg_batch.prepare_image(image, diameter=DIAMETER, model=model)
    expected = nucseg_batch.Predictor(model, **EXACT).predict(image, diameter=DIAMETER)
    assert_alike(shown.labels(answer_of(out, shown.pixels)), expected)
    said = {one.key: json.loads(one.value) for one in onnx.load_model(out).metadata_props}
    assert (said["diameter"], said["min_area"], said["channels"]) == (19.0, 7, list(description.CHANNELS))
    assert said["threshold"] == shown.record.threshold


def test_a_model_of_the_foreground_has_one_channel_and_a_grey_package(images: Path, tmp_path: Path) -> None:
    """With the author and the licence that were given; without them a line says so."""
    from bioimageio.core import load_model_description

    info = ModelInfo("default", (2, 3), task="semantic", diameter=20.0, min_area=1)
    image, out = imread(images / "grey.tif")[:97, :131], tmp_path / "mask.zip"
    model = made(tmp_path, info, image)
    words = ("--author", "A. Maker", "--author", "B. Maker", "--license", "CC-BY-4.0", "--name", "Masks (test)")
    told = call("models", "export", model, out, "--format", "bioimageio", "--grey", *words).stdout
    assert "give --author" not in told
    with zipfile.ZipFile(out) as archive:
        archive.extractall(tmp_path / "mask")
    described: Any = load_model_description(tmp_path / "mask" / "rdf.yaml")
    assert described.name == "Masks (test)"
    assert [author.name for author in described.authors] == ["A. Maker", "B. Maker"]
    assert described.license == "CC-BY-4.0"
    assert list(described.inputs[0].axes[1].channel_names) == ["grey"]
    assert list(described.outputs[0].axes[1].channel_names) == ["foreground"]
    shown = nucseg_batch.prepare_image(image, diameter=DIAMETER, model=tmp_path / "mask" / "model.keras")
    labels = shown.labels(answer_of(tmp_path / "mask" / "model.onnx", shown.pixels))
    assert_alike(labels, nucseg_batch.Predictor(model, **EXACT).predict(image, diameter=DIAMETER))


def test_a_saved_model_answers_as_onnx_does(tmp_path: Path) -> None:
    """TensorFlow loads it without our code; a second export needs --overwrite."""
    import tensorflow as tf

    model = made(tmp_path, ModelInfo("default", (2, 3), diameter=20.0))
    call("models", "export", model, tmp_path / "saved", "--format", "savedmodel")
    call("models", "export", model, tmp_path / "net.onnx", "--format", "onnx")
    pixels = np.random.default_rng(3).random((2, 3, 64, 96), np.float32)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))  # its variables live as long as this does
    served = loaded.serve(tf.constant(pixels)).numpy()
    assert np.abs(served - answer_of(tmp_path / "net.onnx", pixels)).max() < 1e-3
    assert json.loads((tmp_path / "saved" / "nucseg.json").read_text())["diameter"] == 20.0
    again = ("models", "export", model, tmp_path / "saved", "--format", "savedmodel")
    assert "--overwrite" in call(*again, code=73).stderr
    call(*again, "--overwrite")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_export_that_answers_otherwise_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is set below what rounding gives."""
    monkeypatch.setattr("nucseg_batch.network.exported.TOLERANCE", -1.0)
    model = made(tmp_path, ModelInfo("default", (2, 3)))
    told = call("models", "export", model, tmp_path / "net.onnx", "--format", "onnx", code=78).stderr
    assert "differ from those of the model" in told
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


def test_answers_that_differ_or_are_no_numbers_are_refused() -> None:
    """A graph that overflows gives NaN, which is nowhere near."""
    answer = np.zeros((1, 3, 4, 5), np.float32)
    check_answer("x", answer, answer)
    for other in (answer + np.float32(0.01), answer * np.float32("nan"), answer[:, :1]):
        with pytest.raises(ModelError, match=r"^x: "):
            check_answer("x", other, answer)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("default", "a.zip", "--format", "onnx"), 2, "TO must be a name that ends in .onnx"),
        (("default", "a.onnx", "--format", "savedmodel"), 2, "TO must be the name of a folder"),
        (("default", "full", "--format", "savedmodel"), 73, "give another name"),
        (("default", "full", "--format", "savedmodel", "--overwrite"), 73, "holds no SavedModel"),
        (("default", "a.zip"), 2, "--format is missing"),
        (("default",), 2, "TO is missing"),
        ((), 2, "MODEL is missing"),
        (("defualt", "a.zip", "--format", "bioimageio"), 66, "MODEL defualt: there is no such file; did you mean"),
        (("cut.keras", "a.onnx", "--format", "onnx"), 78, "MODEL cut.keras: it is not a readable .keras file"),
    ],
)
def test_wrong_calls_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/notes.txt").touch()
    Path("cut.keras").write_bytes(default_model().read_bytes()[:1000])
    assert words in call("models", "export", *arguments, code=code).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.keras", "full"]
    assert [path.name for path in Path("full").iterdir()] == ["notes.txt"]


def test_a_licence_that_bioimage_io_does_not_know_is_refused(tmp_path: Path) -> None:
    """With the option that is wrong."""
    model = made(tmp_path, ModelInfo("default", (2, 3)))
    out = tmp_path / "a.zip"
    told = call("models", "export", model, out, "--format", "bioimageio", "--license", "my own", code=2).stderr
    assert "--license my own: it must be an SPDX name" in told
    assert not out.exists()


def test_a_missing_library_is_named_with_the_extra_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is loaded or written; a SavedModel needs none."""
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # Python then finds none
    for name, suffix in (("onnx", ".onnx"), ("bioimageio", ".zip")):
        with pytest.raises(UsageError, match=r"needs tf2onnx, .*: pip install 'nucseg-batch\[models\]'"):
            writing.check_export(name, tmp_path / f"a{suffix}", overwrite=False)
    writing.check_export("savedmodel", tmp_path / "a", overwrite=False)


def test_an_answer_of_another_shape_is_refused() -> None:
    """As of an image that was prepared for another width of nuclei."""
    shown = nucseg_batch.prepare_image(np.zeros((67, 83), np.uint8), diameter=26)
    assert shown.pixels.shape == (1, 1, 96, 96)
    for shape in ((1, 3, 96, 128), (1, 1, 96, 96), (3, 96, 96)):
        with pytest.raises(UsageError, match="output must have the shape"):
            shown.labels(np.zeros(shape, np.float32))
    assert not shown.labels(np.zeros((1, 3, 96, 96), np.float32)).any()
    with pytest.raises(UsageError, match="diameter must be between"):
        nucseg_batch.prepare_image(np.zeros((67, 83), np.uint8), diameter=0)
