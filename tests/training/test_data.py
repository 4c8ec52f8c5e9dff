from __future__ import annotations

from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import disks, fluorescence

from nucseg_batch.errors import ImageError, InputMissingError, NothingToDoError
from nucseg_batch.training.data import find_pairs, fingerprint, read_labels, read_sample, split_pairs


def write_pair(folder: Path, name: str, shape: tuple[int, int] = (31, 41)) -> None:
    labels = disks(shape, [(9, 11), (22, 30)], 6)
    for kind, pixels in (("images", fluorescence(labels)), ("labels", labels.astype(np.uint16))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{name}.png").write_bytes(imagecodecs.png_encode(pixels))


def test_images_pair_with_labels_of_the_same_name(tmp_path: Path) -> None:
    """An image without labels teaches nothing and is left out."""
    write_pair(tmp_path, "a")
    write_pair(tmp_path, "b")
    (tmp_path / "labels" / "b.png").unlink()
    (pair,) = find_pairs(tmp_path)
    assert pair.key == "images/a.png"
    sample = read_sample(pair)
    assert sample.areas[1:].tolist() == [113, 113]
    np.testing.assert_allclose(sample.centres[1:], [[9, 11], [22, 30]])


def test_an_index_says_what_is_trained_on_and_its_test_rows_are_never_used(tmp_path: Path) -> None:
    """Scores on images that were trained on are worth nothing."""
    for name in "abcd":
        write_pair(tmp_path / "train", name)
    (tmp_path / "index.csv").write_text("id,split,modality\na,train,fluorescence\nb,val,histology\nc,test,x\n")
    pairs = find_pairs(tmp_path)
    assert [(pair.key, pair.split, pair.modality) for pair in pairs] == [
        ("train/images/a.png", "train", "fluorescence"),
        ("train/images/b.png", "val", "histology"),
    ]
    assert find_pairs(tmp_path / "train")[0].split == "train", "the index is found one folder up, too"
    training, validation = split_pairs(pairs, fraction=0.5, seed=1)
    assert [pair.split for pair in training + validation] == ["train", "val"]


def test_without_an_index_a_fixed_random_share_is_held_out(tmp_path: Path) -> None:
    """The same seed holds out the same images."""
    for i in range(10):
        write_pair(tmp_path, f"{i}")
    pairs = find_pairs(tmp_path)
    training, validation = split_pairs(pairs, fraction=0.3, seed=4)
    assert (len(training), len(validation)) == (7, 3)
    assert split_pairs(pairs, fraction=0.3, seed=4) == (training, validation)
    assert not {p.key for p in training} & {p.key for p in validation}
    with pytest.raises(NothingToDoError):
        split_pairs(pairs[:1], fraction=0.3, seed=4)


def test_masks_of_single_nuclei_are_stacked_into_labels(tmp_path: Path) -> None:
    """As Kaggle ships them: a picture a nucleus."""
    labels = disks((31, 41), [(9, 11), (22, 30)], 6)
    folder = tmp_path / "x1"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    (folder / "images" / "x1.png").write_bytes(imagecodecs.png_encode(fluorescence(labels)))
    for i in (1, 2):
        (folder / "masks" / f"{i}.png").write_bytes(imagecodecs.png_encode((labels == i).astype(np.uint8) * 255))
    (pair,) = find_pairs(tmp_path)
    np.testing.assert_array_equal(read_labels(pair.labels), labels)


def test_annotation_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    """Shifted annotation would train a model to be wrong."""
    write_pair(tmp_path, "a")
    (tmp_path / "labels" / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((30, 41), np.uint16)))
    with pytest.raises(ImageError, match=r"images/a\.png"):
        read_sample(find_pairs(tmp_path)[0])


def test_a_folder_without_pairs_says_what_was_expected(tmp_path: Path) -> None:
    """The layouts are few; the message names them."""
    with pytest.raises(NothingToDoError, match="labels/"):
        find_pairs(tmp_path)
    with pytest.raises(InputMissingError):
        find_pairs(tmp_path / "nowhere")


def test_the_fingerprint_follows_names_and_contents(tmp_path: Path) -> None:
    """A model card names its data by it."""
    write_pair(tmp_path, "a")
    first = fingerprint(find_pairs(tmp_path))
    assert first == fingerprint(find_pairs(tmp_path))
    write_pair(tmp_path, "a", (33, 41))
    assert first != fingerprint(find_pairs(tmp_path))


def test_the_shared_data_set_splits_as_its_index_says(shared: Path) -> None:
    """The test images are in the same folder and must stay out."""
    pairs = find_pairs(shared / "dsb2018")
    assert Counter(pair.split for pair in pairs) == {"train": 537, "val": 78}
    assert not any("test/" in pair.key for pair in pairs)


def test_the_kaggle_layout_reads(shared: Path) -> None:
    """24 images as Kaggle ships them; image and stacked masks agree in shape."""
    pairs = find_pairs(shared / "dsb2018_kaggle_layout")
    assert len(pairs) == 24
    sample = read_sample(pairs[0])
    assert sample.labels.max() == len(pairs[0].labels)
