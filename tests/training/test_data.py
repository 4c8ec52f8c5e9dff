from __future__ import annotations

import dataclasses
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import disks, fluorescence

from nucseg_batch.arrays.metrics import Match
from nucseg_batch.errors import DoubtfulInputError, ImageError, NothingToDoError
from nucseg_batch.files.annotations import Pair, find_pairs
from nucseg_batch.training.callbacks import mean_scores
from nucseg_batch.training.crops import SHARE_EXPONENT
from nucseg_batch.training.data import Sample, fingerprint, read_all, split_pairs

LABELS = disks((31, 41), [(9, 11), (22, 30)], 6)


def write_pair(folder: Path, name: str, labels: np.ndarray = LABELS, shape: tuple[int, int] = (31, 41)) -> None:
    image = fluorescence(np.zeros(shape, np.int32) if shape != labels.shape else labels)
    for kind, pixels in (("images", image), ("labels", labels.astype(np.uint16))):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{name}.png").write_bytes(imagecodecs.png_encode(pixels))


def pairs_of(folder: Path) -> list[Pair]:
    return list(find_pairs(folder).pairs)


def named(*keys: str, split: str | None = None, group: str | None = None) -> list[Pair]:
    return [Pair(key, Path(key), (Path(key),), split=split, group=group) for key in keys]


def test_a_sample_knows_where_its_nuclei_are_and_how_large(tmp_path: Path) -> None:
    """Crops, targets and the model's nominal diameter are made from it."""
    write_pair(tmp_path, "a")
    (sample,) = read_all(pairs_of(tmp_path), lambda _: None)
    assert sample.areas[1:].tolist() == [113, 113]
    np.testing.assert_allclose(sample.centres[1:], [[9, 11], [22, 30]])
    assert sample.diameter == pytest.approx(12, abs=0.1)


def test_all_images_that_cannot_be_used_are_told_before_training(tmp_path: Path) -> None:
    """Mending one, waiting, and finding the next is a day's work; training on fewer images is not what was asked."""
    write_pair(tmp_path, "a", shape=(30, 41))
    write_pair(tmp_path, "b")
    write_pair(tmp_path, "c")
    (tmp_path / "labels" / "c.png").write_bytes(b"x")
    told: list[str] = []
    with pytest.raises(ImageError, match=r"2 of 3 .*images/a\.png: the image is \(30, 41\) .*images/c\.png"):
        read_all(pairs_of(tmp_path), told.append)
    assert [line.split(":")[0] for line in told] == ["images/a.png", "images/c.png"]


def test_an_error_names_ten_images_and_counts_the_rest(tmp_path: Path) -> None:
    """It is one line."""
    for i in range(13):
        write_pair(tmp_path, f"{i:02d}", shape=(30, 41))
    told: list[str] = []
    with pytest.raises(ImageError, match="; and 3 more"):
        read_all(pairs_of(tmp_path), told.append)
    assert len(told) == 13


def test_empty_annotation_serves_as_background_but_is_told(tmp_path: Path) -> None:
    """It may be meant, or a file that was never filled in."""
    write_pair(tmp_path, "a")
    write_pair(tmp_path, "b", LABELS * 0)
    told: list[str] = []
    samples = read_all(pairs_of(tmp_path), told.append)
    assert [sample.areas.sum() for sample in samples] == [226, 0]
    assert told == ["images/b.png: no nucleus is annotated; it serves as background"]
    with pytest.raises(NothingToDoError, match="No nucleus"):
        read_all(pairs_of(tmp_path)[1:], told.append)


def test_a_binary_mask_in_place_of_labels_is_numbered_and_told(tmp_path: Path) -> None:
    """Taken as it is, it would teach that an image has one nucleus in many places."""
    write_pair(tmp_path, "a", (LABELS > 0) * 255)
    told: list[str] = []
    (sample,) = read_all(pairs_of(tmp_path), told.append)
    np.testing.assert_array_equal(sample.labels, LABELS)
    assert len(told) == 1
    assert told[0].startswith("assumed (doubtful): images/a.png: read as a binary mask")
    assert "touching nuclei count as one" in told[0]
    assert read_all(pairs_of(tmp_path), told.append, semantic=True, strict=True)
    with pytest.raises(DoubtfulInputError, match=r"images/a\.png: read as a binary mask"):
        read_all(pairs_of(tmp_path), told.append, strict=True)


def test_without_an_index_a_fixed_random_share_is_held_out() -> None:
    """The same seed holds out the same images."""
    pairs = named(*"abcdefghij")
    training, validation = split_pairs(pairs, fraction=0.3, seed=4)
    assert (len(training), len(validation)) == (7, 3)
    assert split_pairs(pairs, fraction=0.3, seed=4) == (training, validation)
    assert not {p.key for p in training} & {p.key for p in validation}
    with pytest.raises(NothingToDoError):
        split_pairs(pairs[:1], fraction=0.3, seed=4)


@pytest.mark.parametrize("seed", range(7))
def test_images_of_one_group_are_never_on_both_sides(seed: int) -> None:
    """Two fields of one well look alike: validating on one what the other taught proves nothing."""
    pairs = named(*"abcde", group="1") + named(*"fgh", group="2") + named(*"ijk", group="3") + named("l", "m")
    training, validation = split_pairs(pairs, fraction=0.25, seed=seed)
    assert 1 <= len(validation) <= 3
    assert not {p.group for p in training if p.group} & {p.group for p in validation}
    assert sorted(p.key for p in training + validation) == [p.key for p in pairs]


def test_groups_that_are_all_too_large_leave_the_smallest_held_out() -> None:
    """Something must be validated on, and most should be learnt from; one group alone can be on one side only."""
    pairs = named(*"abcde", group="1") + named(*"fg", group="2") + named(*"hijk", group="3")
    for seed in range(5):
        _, validation = split_pairs(pairs, fraction=0.1, seed=seed)
        assert [p.key for p in validation] == ["f", "g"]
    with pytest.raises(NothingToDoError, match="groups"):
        split_pairs(pairs[:5], fraction=0.1, seed=1)


def test_what_the_data_set_names_for_validation_wins_over_a_share() -> None:
    """Others validated on it, too; images without a split, from folders without an index, are learnt from."""
    pairs = named("a", "b", split="train") + named("c", split="val") + named("d")
    training, validation = split_pairs(pairs, fraction=0.5, seed=1)
    assert [p.key for p in training] == ["a", "b", "d"]
    assert [p.key for p in validation] == ["c"]


def test_a_folder_of_validation_images_wins_and_is_never_trained_on(tmp_path: Path) -> None:
    """It may lie within the folder of all images, and is then found twice."""
    for place in ("one", "two"):
        write_pair(tmp_path / place, "a")
    pairs = [*pairs_of(tmp_path), *named("x", split="val")]
    training, validation = split_pairs(pairs, fraction=0.5, seed=1, validation=pairs_of(tmp_path / "two"))
    assert [p.key for p in training] == ["one/images/a.png"]
    assert [p.key for p in validation] == ["images/a.png"]
    with pytest.raises(NothingToDoError):
        split_pairs(pairs_of(tmp_path / "two"), fraction=0.5, seed=1, validation=pairs_of(tmp_path / "two"))


def test_the_fingerprint_follows_names_and_contents(tmp_path: Path) -> None:
    """A model card names its data by it."""
    write_pair(tmp_path, "a")
    pairs = pairs_of(tmp_path)
    first = fingerprint(pairs)
    assert first == fingerprint(pairs)
    assert first != fingerprint([dataclasses.replace(pairs[0], key="b")])
    write_pair(tmp_path, "a", LABELS * 2)
    assert first != fingerprint(pairs)


def test_the_kaggle_layout_reads(shared: Path) -> None:
    """Images and their stacked masks agree in shape and number, and no mask is taken for a binary one."""
    pairs = pairs_of(shared / "dsb2018_kaggle_layout")
    told: list[str] = []
    samples = read_all(pairs, told.append)
    assert [sample.labels.max() for sample in samples] == [len(pair.labels) for pair in pairs]
    assert told == []


def test_ignored_pixels_are_neither_nucleus_nor_background(tmp_path: Path) -> None:
    """A mask beside the labels says where nobody decided; what a model finds there is not held against it."""
    write_pair(tmp_path, "a")
    ignored = np.zeros((31, 41), np.uint8)
    ignored[:20, 25:] = 255
    ignored[5:10, 8:12] = 255
    (tmp_path / "ignore").mkdir()
    (tmp_path / "ignore" / "a.png").write_bytes(imagecodecs.png_encode(ignored))
    (sample,) = read_all(pairs_of(tmp_path), lambda _: None)
    assert (sample.labels[:15, 25:] == -1).all()
    np.testing.assert_array_equal(sample.truth, LABELS)
    assert sample.areas[1:].tolist() == [113, 113], "what is annotated stays a nucleus"
    found = LABELS.copy()
    found[2:9, 30:38] = 3
    assert set(np.unique(sample.scored(found))) == {0, 1, 2}
    (tmp_path / "ignore" / "a.png").write_bytes(imagecodecs.png_encode(ignored[:30]))
    with pytest.raises(ImageError, match=r"its mask to ignore \(30, 41\)"):
        read_all(pairs_of(tmp_path), lambda _: None)


def test_images_that_are_known_to_show_no_nucleus_are_not_told_of(tmp_path: Path) -> None:
    """Modality `negative` says so; nuclei annotated in one are a mistake."""
    write_pair(tmp_path, "a")
    write_pair(tmp_path, "b", LABELS * 0)
    (tmp_path / "index.csv").write_text("id,modality\na,fluorescence\nb,negative\n")
    told: list[str] = []
    assert [sample.modality for sample in read_all(pairs_of(tmp_path), told.append)] == ["fluorescence", "negative"]
    assert told == []
    (tmp_path / "index.csv").write_text("id,modality\na,negative\nb,negative\n")
    with pytest.raises(ImageError, match="its modality is negative, but 2 nuclei are annotated"):
        read_all(pairs_of(tmp_path), told.append)


def test_small_collections_are_not_drowned_in_validation() -> None:
    """One image of ten counts more than a tenth where it is a collection; an empty field, all or nothing, does not."""
    blank = np.zeros((4, 4), np.int32)
    many = [
        Sample(str(i), "x", blank, blank.astype(np.float32), blank, np.zeros((1, 2)), np.zeros(1, np.int64), "many")
        for i in range(9)
    ]
    few = dataclasses.replace(many[0], key="few", collection="few")
    right, wrong = [Match(0.5, 1, 0, 0)], [Match(0.5, 0, 1, 0)]
    share = 9**SHARE_EXPONENT / (9**SHARE_EXPONENT + 1)
    assert 0.5 < share < 0.9
    assert mean_scores([right] * 9 + [wrong], [*many, few]) == pytest.approx((share, share))
    assert mean_scores([right] * 9, many) == (1.0, 1.0)
    empty = dataclasses.replace(few, modality="negative")
    assert mean_scores([right] * 9 + [wrong], [*many, empty]) == (1.0, 1.0)
    assert mean_scores([wrong], [empty]) == (0.0, 0.0)
