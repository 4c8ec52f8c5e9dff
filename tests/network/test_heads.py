from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from nucseg_batch.arrays.host_instances import NetworkOutput
from nucseg_batch.arrays.outputs import OFFSET_UNIT, Output
from nucseg_batch.network.heads import HEADS
from nucseg_batch.settings import Task


@pytest.mark.parametrize("task", HEADS)
def test_outputs_lie_where_model_files_have_them(task: Task) -> None:
    """The host finds an output by its number alone, so that of a task cannot leave one out."""
    assert HEADS[task].outputs == tuple(Output)[: {"instances": 3, "semantic": 1}[task]]


@pytest.mark.parametrize("task", HEADS)
def test_each_head_separates_on_the_host_as_on_the_device(task: Task) -> None:
    """Labels, roots and support, and within the part of the image that is real."""
    head = HEADS[task]
    y, x = np.mgrid[:48, :80]
    centres = np.array([[20, 18], [24, 37], [30, 66]])
    offsets = centres[:, None, None] - np.stack([y, x], axis=-1)
    nearest = np.argmin((offsets**2).sum(axis=-1), axis=0)
    full = np.concatenate(
        [4.0 - 0.5 * np.linalg.norm(offsets, axis=-1).min(axis=0)[..., None], offsets[nearest, y, x]], 2
    )
    output = (full / [1, OFFSET_UNIT, OFFSET_UNIT]).astype(np.float32)[..., : len(head.outputs)]
    options = {"threshold": 0.45, "min_area": 12, "blur": 7, "window": 7}
    sizes = np.array([45], np.int32), np.array([71], np.int32)
    labels, roots, support = (np.asarray(one)[0] for one in head.separate(output[None], *sizes, **options))
    certain = np.asarray(ops.sigmoid(output[..., Output.FOREGROUND]))
    answer = NetworkOutput(output, certain, 1, OFFSET_UNIT, len(head.outputs))
    twin = head.separate_on_host(answer, 45, 71, **options)
    assert labels.max() == (3 if head.one_by_one else 1)
    assert len(twin.roots) == (3 if head.one_by_one else 0)
    np.testing.assert_array_equal(twin.labels, labels)
    np.testing.assert_array_equal(twin.roots, np.argwhere(roots))
    np.testing.assert_array_equal(twin.support, support)


def test_a_perfect_network_for_the_foreground_finds_one_label() -> None:
    """Else a mask without a flaw would be scored as if all nuclei but one were missed."""
    truth = np.array([[0, 1, 1], [2, 2, 0]], np.int32)
    np.testing.assert_array_equal(HEADS["instances"].expected(truth), truth)
    np.testing.assert_array_equal(HEADS["semantic"].expected(truth), [[0, 1, 1], [1, 1, 0]])
