"""Arrays of any size are segmented lazily, with the labels of a run; a threshold stands for the network."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from doubles import Threshold
from numpy.typing import NDArray
from small_runs import SmallRun, mosaic, picture, small_run

import nucseg_batch
from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError, UsageError
from nucseg_batch.executors import array_tasks, local

OPTIONS: dict[str, Any] = {"diameter": 26.0, "region": 64}
"""Of the runs that arrays are compared with."""


@pytest.fixture
def segmenter(monkeypatch: pytest.MonkeyPatch) -> Threshold:
    """What segments arrays in this process."""
    one = Threshold()
    monkeypatch.setattr(local, "predictor_of", lambda *_: one)
    monkeypatch.setattr(array_tasks, "_predictors", OrderedDict())
    monkeypatch.setattr(array_tasks, "_contexts", OrderedDict())
    return one


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmenter: Threshold) -> SmallRun:
    """A run that is compared with."""
    return small_run(tmp_path, monkeypatch)


def masks_of(run: SmallRun, name: str, pixels: NDArray[Any], **tags: Any) -> NDArray[np.uint32]:
    """The masks that `segment` writes for an image with these pixels."""
    tifffile.imwrite(run.folder / name, pixels, **tags)
    run.segment()
    return nucseg_batch.open_masks(run.store)[name]


def assert_same_partition(labels: NDArray[Any], masks: NDArray[Any]) -> None:
    """One label for each nucleus and one nucleus for each label, with the same pixels."""
    pairs = set(zip(labels.ravel().tolist(), masks.ravel().tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == masks.max() + 1
    assert (0, 0) in pairs


CHUNKS = {
    "one block": (-1, -1),
    "7 x 5 uneven blocks": ((3, 40, 1, 90, 64, 64, 51), (100, 1, 7, 200, 101)),
    "small squares": (17, 23),
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_labels_are_those_of_a_run_however_the_array_is_cut(small: SmallRun, chunks: Any) -> None:
    """Of a plane of 5 x 7 regions."""
    pixels = mosaic((313, 409))
    masks = masks_of(small, "a.tif", pixels)
    x = da.from_array(pixels, chunks=chunks)
    labels = nucseg_batch.segment_array(x, dense=True, **OPTIONS)
    assert (labels.shape, labels.dtype, labels.chunksize) == (pixels.shape, np.uint32, (64, 64))
    np.testing.assert_array_equal(labels.compute(scheduler="threads"), masks)
    sparse = nucseg_batch.segment_array(x, **OPTIONS)
    assert sparse.dtype == np.int64
    assert_same_partition(sparse.compute(scheduler="synchronous"), masks)


def test_a_mosaic_of_4096_pixels_in_uneven_blocks_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmenter: Threshold
) -> None:
    """With the default size of regions, of which it has four."""
    run = small_run(tmp_path, monkeypatch, region=3072)
    pixels = mosaic((4096, 4096), step=61)
    masks = masks_of(run, "a.tif", pixels)
    x = da.from_array(pixels, chunks=((1000, 1, 999, 96, 1000, 500, 500), (3000, 7, 89, 500, 500)))
    labels = nucseg_batch.segment_array(x, diameter=26, dense=True)
    assert labels.numblocks == (2, 2)
    np.testing.assert_array_equal(labels.compute(), masks)
    assert_same_partition(nucseg_batch.segment_array(x, diameter=26).compute(), masks)


def test_a_block_alone_has_the_labels_that_it_has_in_the_whole(small: SmallRun, segmenter: Threshold) -> None:
    """So a viewer computes only what is looked at, and blocks agree without talking."""
    pixels = mosaic((200, 230), step=11)
    labels = nucseg_batch.segment_array(da.from_array(pixels, chunks=50), **OPTIONS)
    whole = labels.compute()
    segmenter.shown.clear()
    np.testing.assert_array_equal(labels[70:100, 130:190].compute(), whole[70:100, 130:190])
    assert len(segmenter.shown) == 1, "one region was segmented"
    other = nucseg_batch.segment_array(da.from_array(pixels, chunks=(-1, 33)), **OPTIONS)
    np.testing.assert_array_equal(other.compute(), whole)
    above, below = whole[63:65]
    both = (above > 0) & (below > 0)
    assert both.any()
    assert (above[both] == below[both]).all()


def test_nothing_is_read_or_loaded_before_something_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a plane that no memory could hold either."""
    monkeypatch.setattr(local, "predictor_of", lambda *_: pytest.fail("the model is loaded"))

    def read(block_info: Any = None) -> NDArray[np.uint8]:
        pytest.fail("pixels are read")

    x = da.map_blocks(read, chunks=((10_000,) * 30, (10_000,) * 30), dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    labels = nucseg_batch.segment_array(x)
    assert labels.shape == (300_000, 300_000)
    assert labels.chunksize == (3072, 3072)


@pytest.mark.parametrize("dense", [True, False])
def test_stacks_have_labels_of_their_own_in_each_plane(small: SmallRun, dense: bool) -> None:
    """Time points and depths, small planes that share batches, and large ones."""
    for name, shape in (("small.tif", (40, 50)), ("large.tif", (70, 90))):
        planes = [picture(n, shape, value=150 + n) for n in (2, 0, 5, 3, 1, 4)]
        stack = np.stack(planes).reshape(2, 3, *shape)
        masks = masks_of(small, name, stack, metadata={"axes": "TZYX"}, ome=True)
        x = da.from_array(stack[:, None], chunks=(1, 1, 2, 33, -1))
        labels = nucseg_batch.segment_array(x, dense=dense, **OPTIONS)
        assert labels.shape == (2, 3, *shape)
        found = labels.compute()
        for t, z in np.ndindex(2, 3):
            assert_same_partition(found[t, z], masks[t, z])
            if dense:
                np.testing.assert_array_equal(found[t, z], masks[t, z])
        small = small_run(small.folder.parent / name, pytest.MonkeyPatch()) if name == "small.tif" else small


def test_a_plane_of_a_stack_is_segmented_alone(segmenter: Threshold) -> None:
    """A viewer shows one slice; the labels are those of the whole stack, whatever is in a block."""
    stack = np.stack([picture(n, (40, 50), value=150 + n) for n in (2, 0, 5, 3, 1, 4)])
    x = da.from_array(stack, chunks=(4, 33, -1))
    labels = nucseg_batch.segment_array(x, axes="zyx", **OPTIONS)
    assert labels.chunksize == (1, 40, 50)
    whole = labels.compute()
    assert whole.max(axis=(1, 2)).tolist() == [2, 0, 5, 3, 1, 4]
    for planes, chunks in ((1, (1,) * 6), (4, (4, 2)), (100, (6,))):
        blocks = nucseg_batch.segment_array(x, axes="zyx", planes_per_block=planes, **OPTIONS)
        assert blocks.chunks == (chunks, (40,), (50,))
        segmenter.shown.clear()
        np.testing.assert_array_equal(blocks[3].compute(), whole[3])
        assert len(segmenter.shown) == chunks[0]
        np.testing.assert_array_equal(blocks.compute(), whole)
    films = nucseg_batch.segment_array(stack.reshape(2, 3, 40, 50), axes="tzyx", planes_per_block=2, **OPTIONS)
    assert films.chunks[:2] == ((1, 1), (2, 1))
    np.testing.assert_array_equal(films.compute(), whole.reshape(2, 3, 40, 50))


def test_axes_come_in_any_order_and_channels_are_chosen(segmenter: Threshold) -> None:
    """By number; the others are not even read."""
    nuclei, other = mosaic((70, 90)), np.full((70, 90), 250, np.uint8)
    expected = nucseg_batch.segment_array(nuclei, dense=True, **OPTIONS).compute()
    stack = np.stack([np.stack([other, nuclei]), np.stack([other, nuclei[::-1, ::-1]])])  # z, c, y, x
    x = da.from_array(stack.transpose(3, 1, 0, 2), chunks=30)
    labels = nucseg_batch.segment_array(x, axes="xczy", channel=1, dense=True, **OPTIONS)
    assert labels.shape == (90, 2, 70)
    np.testing.assert_array_equal(labels[:, 0].compute().T, expected)
    colour = np.stack([nuclei // 2, nuclei, nuclei // 3, other], axis=-1)  # with alpha
    found = nucseg_batch.segment_array(colour, axes="yxs", channel="green", dense=True, **OPTIONS)
    np.testing.assert_array_equal(found.compute(), expected)
    with pytest.raises(UsageError, match=r"^channel: it has channels 0, 1, .* say with channel which"):
        nucseg_batch.segment_array(x, axes="xczy", **OPTIONS)


def test_zarr_arrays_are_read_by_windows_and_name_their_axes(tmp_path: Path, small: SmallRun) -> None:
    """As `segment` reads a store, also where the fill value stands for what is missing."""
    pixels = mosaic((130, 150)).astype(np.float32)
    pixels[100:, :] = np.nan
    store = tmp_path / "in" / "a.zarr"
    options: dict[str, Any] = {
        "chunks": (1, 64, 50),
        "dtype": "float32",
        "fill_value": 10.0,
    }
    array = zarr.create_array(store, shape=(2, 130, 150), dimension_names=("z", "y", "x"), **options)
    array[:] = np.stack([pixels, pixels[:, ::-1]])
    small.segment()
    masks = nucseg_batch.open_masks(small.store)["a.zarr"]
    labels = nucseg_batch.segment_array(array, dense=True, **OPTIONS)
    np.testing.assert_array_equal(labels.compute(), masks)
    assert masks[:, :100].max(axis=(1, 2)).min() > 60


def test_images_open_as_dask_arrays_and_are_segmented_as_files(small: SmallRun) -> None:
    """Whatever they are: grey, colours, channels, stacks; what cannot be opened is told."""
    grey, rest = mosaic((100, 120)), picture(3, (37, 53))
    tifffile.imwrite(small.folder / "grey.tif", grey, tile=(32, 48))
    tifffile.imwrite(small.folder / "colour.tif", np.stack([rest, rest // 2, rest // 3], axis=-1), photometric="rgb")
    channels = np.stack([rest[::-1], rest])
    names = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    tifffile.imwrite(small.folder / "channels.ome.tif", channels, metadata=names)
    (small.folder / "bad.png").write_bytes(b"no picture")
    small.segment()
    masks = nucseg_batch.open_masks(small.store)
    images = nucseg_batch.open_images(small.folder, region=64)
    assert list(images) == ["channels.ome.tif", "colour.tif", "grey.tif"]
    assert [failure.image for failure in images.failures] == ["bad.png"]
    shapes = {"channels.ome.tif": (1, 2, 1, 37, 53), "colour.tif": (1, 3, 1, 37, 53), "grey.tif": (1, 1, 1, 100, 120)}
    assert {name: array.shape for name, array in images.items()} == shapes
    assert images["grey.tif"].chunks[-2:] == ((64, 36), (64, 56))
    np.testing.assert_array_equal(images["grey.tif"].compute()[0, 0, 0], grey)
    np.testing.assert_array_equal(images["channels.ome.tif"][0, :, 0].compute(), channels)
    np.testing.assert_array_equal(images["colour.tif"][0, 1, 0].compute(), rest // 2)
    for name in images:
        labels = nucseg_batch.segment_array(images.array(name), dense=True, **OPTIONS)
        np.testing.assert_array_equal(labels.compute()[0, 0], masks[name])
        np.testing.assert_array_equal(masks.dask(name).compute(), masks[name])
        choice: dict[str, Any] = {"channel": 1} if name == "channels.ome.tif" else {}
        again = nucseg_batch.segment_array(images[name], axes=images.axes(name), dense=True, **choice, **OPTIONS)
        np.testing.assert_array_equal(again.compute()[0, 0], masks[name])


def test_parts_of_an_image_are_what_numpy_gives(small: SmallRun) -> None:
    """Integers, negative ones, steps backwards, an ellipsis; and in another process."""
    stack = np.arange(3 * 2 * 11 * 13, dtype=np.uint16).reshape(3, 2, 11, 13)
    tifffile.imwrite(small.folder / "a.ome.tif", stack, metadata={"axes": "TCYX", "Channel": {"Name": ["DAPI", "b"]}})
    array = nucseg_batch.open_images(small.folder).array("a.ome.tif")
    whole = stack[:, :, None]
    for where in (
        np.s_[...], np.s_[1], np.s_[-1, 1, 0, 3, 4], np.s_[..., 2:9:3, 5], np.s_[::2, ::-1, :, ::-2, 12:3:-1],
        np.s_[0:0], np.s_[1:, ..., -5:-1],
    ):  # fmt: skip
        np.testing.assert_array_equal(array[where], whole[where], err_msg=str(where))
    np.testing.assert_array_equal(np.asarray(array), whole)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[2, 0], whole[2, 0])
    for wrong in (np.s_[0, 0, 0, 0, 0, 0], np.s_[3], np.s_[[0, 1]], np.s_[:, None]):
        with pytest.raises(IndexError):
            array[wrong]
    tifffile.imwrite(small.folder / "a.ome.tif", stack[:2], metadata={"axes": "TCYX"})
    with pytest.raises(ImageError, match="changed"):
        array[0]


def test_what_an_array_cannot_be_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    """In one line, with what to give instead."""
    image = np.zeros((40, 50), np.uint8)
    for array, options, words in (
        (image[None], {}, r"axes must be given for an array of shape \(1, 40, 50\), such as zyx"),
        (image, {"axes": "yz"}, "axes must name each axis"),
        (image, {"axes": "zyx"}, "axes must name each axis"),
        (image[..., None], {"axes": "yxs"}, "axis s must have 3 samples"),
        (image.astype(complex), {}, "dtype"),
        (image[:0], {}, "must have pixels"),
        (image, {"diamter": 3}, "did you mean diameter"),
        (image, {"t": 0}, "segment_array has no option t; it has channel,"),
        (image, {"threshold": 7}, "^threshold must be between"),
        (image, {"diameter": "26"}, "^diameter must be a number, but is '26'"),
        (image, {"planes_per_block": 0}, "^planes_per_block must be a whole number, 1 or more, but is 0"),
        (image, {"planes_per_block": 1.5}, "^planes_per_block must be a whole number"),
        ("zin", {}, r"^x must be a dask, zarr or numpy array, .* but is 'zin' \(str\); for files, use open_images\.$"),
        ([[1, 2], [3, 4]], {}, r"^x must be a dask, zarr or numpy array, .* but is \[\[1, 2\], \[3, 4\]\] \(list\)"),
        (
            image,
            {"channel": "GFP"},
            r"^channel: there is no channel 'GFP': .*\. Leave channel out; .* give axes with c",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            nucseg_batch.segment_array(array, **options)
    unknown = da.from_array(image, chunks=10)
    with pytest.raises(UsageError, match="known shape"):
        nucseg_batch.segment_array(unknown[unknown.max(axis=1) > 0])
    with pytest.raises(InputMissingError, match=r"no\.keras"):
        nucseg_batch.segment_array(image, model=tmp_path / "no.keras")
    with pytest.raises(UsageError, match="open_images has no option diameter"):
        nucseg_batch.open_images(tmp_path, diameter=3)
    with pytest.raises(UsageError) as told:
        nucseg_batch.segment_array(image, channel="GFP")
    assert "--" not in str(told.value), "options of the command do not apply"
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(NothingToDoError, match=r"bad\.png"):
        nucseg_batch.open_images(tmp_path)


@pytest.mark.parametrize("side", [40, 100])
def test_an_error_in_the_array_is_the_error_of_its_labels(segmenter: Threshold, side: int) -> None:
    """Of whole planes and of regions; later blocks can still be computed."""

    def fails(block: NDArray[Any], block_info: Any = None) -> NDArray[Any]:
        if block_info[0]["chunk-location"] == (1, 1):
            raise RuntimeError("the sensor broke")
        return block

    x = da.from_array(picture(3, (side, side)), chunks=side // 2).map_blocks(fails, dtype=np.uint8)
    with pytest.raises(Exception, match="the sensor broke"):
        nucseg_batch.segment_array(x, **OPTIONS).compute()


def test_the_model_file_must_be_the_one_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may see another one at the same path."""
    model = tmp_path / "mine.keras"
    model.write_bytes(b"one")
    labels = nucseg_batch.segment_array(np.zeros((40, 50), np.uint8), model=model)
    model.write_bytes(b"another")
    with pytest.raises(Exception, match=r"mine\.keras: the file is not the one"):
        labels.compute()
    model.unlink()
    with pytest.raises(Exception, match=r"mine\.keras: this process does not see it"):
        labels.compute()


def test_labels_of_other_options_share_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the model is not made ready with; else tasks that take turns would load it again and again."""
    made: list[Threshold] = []
    monkeypatch.setattr(array_tasks, "_predictors", OrderedDict())

    def make(*_: Any) -> Threshold:
        made.append(Threshold())
        return made[-1]

    monkeypatch.setattr(local, "predictor_of", make)
    pixels = picture(5)
    variants: list[dict[str, Any]] = [{"diameter": 20}, {"diameter": 30}, {"diameter": 20, "threshold": 0.3}]
    lazy = [nucseg_batch.segment_array(da.from_array(pixels + k), **one) for k in range(4) for one in variants]
    assert all(labels.max() == 5 for labels in dask.compute(*lazy, scheduler="synchronous"))
    assert len(made) == 2


def test_names_are_those_of_pixels_and_options() -> None:
    """So that a cluster finds what it has, and takes nothing else for it."""
    pixels = mosaic((100, 120))
    first, again = (nucseg_batch.segment_array(pixels.copy(), **OPTIONS) for _ in range(2))
    assert first.name == again.name
    others = [
        nucseg_batch.segment_array(pixels + 1, **OPTIONS),
        nucseg_batch.segment_array(pixels, dense=True, **OPTIONS),
        nucseg_batch.segment_array(pixels, **OPTIONS | {"diameter": 27}),
    ]
    assert len({one.name for one in (first, *others)}) == 4


def test_dense_and_other_labels_of_one_array_share_their_regions(segmenter: Threshold) -> None:
    """Each region is segmented once where both are computed together."""
    pixels = mosaic((100, 120))
    dense, sparse = (nucseg_batch.segment_array(pixels, dense=dense, **OPTIONS) for dense in (True, False))
    found = dask.compute(dense, sparse)
    assert len(segmenter.shown) == 4
    assert_same_partition(found[1], found[0])


def test_a_chunk_with_many_planes_is_decoded_once(tmp_path: Path, segmenter: Threshold) -> None:
    """As stores with time series have them; planes are read one by one."""

    class Counting(zarr.storage.LocalStore):
        reads = 0

        async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
            Counting.reads += "c/" in key
            return await super().get(key, *arguments, **options)

    stack = np.stack([picture(n, (40, 50)) for n in range(6)])
    array = zarr.create_array(Counting(tmp_path / "a.zarr"), shape=stack.shape, chunks=(6, 40, 25), dtype="uint8")
    array[:] = stack
    Counting.reads = 0
    labels = nucseg_batch.segment_array(array, axes="tyx", dense=True, **OPTIONS).compute()
    assert labels.max(axis=(1, 2)).tolist() == [0, 1, 2, 3, 4, 5]
    assert Counting.reads == 2


def test_a_failure_of_an_array_says_once_what_it_is(small: SmallRun) -> None:
    """The class of the error is told only if it says more than the message."""
    tifffile.imwrite(small.folder / "a.tif", picture(5))
    labels = nucseg_batch.segment_array(nucseg_batch.open_images(small.folder).array("a.tif"), **OPTIONS)
    tifffile.imwrite(small.folder / "a.tif", picture(5)[:30])
    with pytest.raises(ImageError, match="changed") as refused:
        labels.compute(scheduler="synchronous")
    assert "(ImageError)" not in str(refused.value)
