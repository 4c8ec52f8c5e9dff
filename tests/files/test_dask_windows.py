from __future__ import annotations

import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray

from nucseg_batch.files import dask_windows
from nucseg_batch.files.dask_windows import DaskWindows

PIXELS = np.arange(3 * 61 * 47, dtype=np.uint16).reshape(3, 61, 47)
CHUNKS = ((1, 2), (7, 30, 1, 23), (20, 27))


def counted(counts: Counter[tuple[int, ...]]) -> da.Array:
    """The pixels, and how often each block was computed."""
    lock = threading.Lock()

    def block(pixels: NDArray[Any], block_info: Any = None) -> NDArray[Any]:
        with lock:
            counts[tuple(block_info[0]["chunk-location"])] += 1
        return pixels

    return da.from_array(PIXELS, chunks=CHUNKS).map_blocks(block, dtype=PIXELS.dtype, meta=PIXELS[:0])


def test_windows_are_those_of_numpy_wherever_blocks_end() -> None:
    windows = DaskWindows(da.from_array(PIXELS, chunks=CHUNKS) * 1)
    rng = np.random.default_rng(0)
    for _ in range(200):
        bounds = [sorted(rng.choice(length + 1, 2, replace=False).tolist()) for length in PIXELS.shape[1:]]
        where = (int(rng.integers(3)), *(slice(*pair) for pair in bounds))
        np.testing.assert_array_equal(windows[where], PIXELS[where])
    assert (windows.shape, windows.dtype) == (PIXELS.shape, PIXELS.dtype)


def test_a_block_is_computed_once_for_all_threads_that_need_it() -> None:
    """Regions overlap, and several are read at a time."""
    counts: Counter[tuple[int, ...]] = Counter()
    windows = DaskWindows(counted(counts))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda top: windows[1, top : top + 20, 5:40], range(41)))
    for top, part in enumerate(parts):
        np.testing.assert_array_equal(part, PIXELS[1, top : top + 20, 5:40])
    assert set(counts.values()) == {1}
    assert len(counts) == 8, "blocks of the other planes are not computed"


def test_blocks_are_kept_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory must not grow with the array; the block that was used last is kept."""
    monkeypatch.setattr(dask_windows, "KEPT_BYTES", 2 * 30 * 27 * 2)
    counts: Counter[tuple[int, ...]] = Counter()
    windows = DaskWindows(counted(counts))
    for _ in range(2):
        for top in range(0, 61, 7):
            for left in (0, 25):
                _ = windows[0, top : top + 1, left : left + 1]
    assert max(counts.values()) > 1
    before = counts.copy()
    _ = windows[0, 56:57, 25:26]
    assert counts == before


def test_another_process_gets_the_graph_and_no_pixels() -> None:
    windows = DaskWindows(da.zeros((4000, 4000), chunks=1000, dtype=np.uint8))
    _ = windows[0:4000, 0:4000]
    sent = pickle.dumps(windows)
    assert len(sent) < 100_000
    assert pickle.loads(sent)[3:5, 7:8].shape == (2, 1)


def test_a_block_that_fails_is_tried_again() -> None:
    """The error is that of the block, for each that needs it."""
    broken = [True]

    def block(pixels: NDArray[Any]) -> NDArray[Any]:
        if broken:
            raise OSError("the disk is away")
        return pixels

    windows = DaskWindows(da.from_array(PIXELS, chunks=CHUNKS).map_blocks(block, dtype=PIXELS.dtype, meta=PIXELS[:0]))
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is away"):
            _ = windows[0, 0:9, 0:9]
    broken.clear()
    np.testing.assert_array_equal(windows[0, 0:9, 0:9], PIXELS[0, :9, :9])
