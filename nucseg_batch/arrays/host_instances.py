"""The twin of `arrays.instances` for a network on the processor: the same labels to the last bit.

A device is fastest where it treats all pixels alike. A processor does best to skip: few pixels are foreground, and few
of these are the place of a centre. So here only foreground pixels vote, links are followed only from places that got
votes, and votes are blurred only where links lead. All of it is integers, but for the probability, which the device
computes for both. The loops are compiled, see `arrays.kernels.separation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays.confidence import REACH, supported
from nucseg_batch.arrays.kernels.arguments import read_only
from nucseg_batch.arrays.outputs import Output
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.arrays.votes import BLUR, CODE, CODE_BITS, JUMPS, MIN_ROOT_VOTES, VOTE, WINDOW_RADIUS
from nucseg_batch.settings import Task

BLOCK = 38
"""Side in pixels of the blocks in which votes are blurred; with the margin of the default blur and window 64. Larger
blocks have less margin, but more of them are needed for a few nuclei (measured: 54 and 70 take longer)."""


@dataclass(frozen=True)
class NetworkOutput:
    """What the network says of one image, as it leaves the device."""

    heads: NDArray[np.float32]
    """(h, w, block * block * outputs): the outputs of each pixel of a block, see `architectures.to_full_resolution`."""
    probability: NDArray[np.float32]
    """(height, width): the foreground's, the sigmoid of its output."""
    block: int = 1
    """Side in pixels of the square that one position answers for."""
    unit: float = 1.0
    """Pixels that an offset of 1 stands for."""
    outputs: int = len(Output)
    """Values for each pixel, in the order of `Output`."""

    def __post_init__(self) -> None:
        """Raises ValueError where the arrays do not fit each other: compiled loops would read beyond them."""
        channels = self.block**2 * self.outputs
        if self.heads.shape[2] != channels or self.probability.shape != self.shape:
            raise ValueError(
                f"heads {self.heads.shape} in blocks of {self.block} must have {channels} channels and as many pixels "
                f"as the probability {self.probability.shape}."
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.heads.shape[0] * self.block, self.heads.shape[1] * self.block

    def inside(self, height: int, width: int, threshold: float) -> NDArray[np.bool_]:
        """Where the probability is above the threshold, within the first `height` rows and `width` columns."""
        found = self.probability > np.float32(threshold)
        found[height:] = False
        found[:, width:] = False
        return found

    def row_starts(self) -> NDArray[np.int64]:
        """(height,): where in the flat `heads` each row of pixels begins."""
        _, w, channels = self.heads.shape
        return self._along(self.shape[0], w * channels, self.block)

    def column_starts(self) -> NDArray[np.int64]:
        """(width,): how far after the start of its row the outputs of each pixel of a row begin."""
        return self._along(self.shape[1], self.heads.shape[2], 1)

    def _along(self, length: int, stride: int, step: int) -> NDArray[np.int64]:
        block, inner = np.divmod(np.arange(length, dtype=np.int64), self.block)
        return block * stride + inner * step * self.outputs


def separate(
    answer: NetworkOutput,
    height: int,
    width: int,
    *,
    threshold: float,
    min_area: int,
    blur: int = BLUR,
    window: int = WINDOW_RADIUS,
) -> SeparatedNuclei:
    """Labels the nuclei of one image, of the answer's shape: what `instances.separate_rooted` gives.

    It is for the same logits and offsets. height, width: the part that is real. Other arguments as there. Raises
    ValueError for an answer without offsets, and for a window that is too wide for coordinates modulo CODE.
    """
    if answer.outputs <= Output.OFFSET_X or not 0 <= window < CODE // 2:
        raise ValueError(f"{answer.outputs} outputs or a window of {window} do not suffice to separate nuclei.")
    from nucseg_batch.arrays.kernels.separation import VoteRules, cast_votes, follow_links, label_pixels

    shape = answer.shape
    rules = VoteRules(
        full=VOTE,
        most=2**31 // blur**4 - 1,
        blur=blur,
        strong=MIN_ROOT_VOTES * VOTE * blur**2,
        window=window,
        code_bits=CODE_BITS,
        steps=2**JUMPS,
        reach=REACH**2,
    )
    votes, numbers, labels = (np.zeros(shape, np.int32) for _ in range(3))
    support = np.zeros(shape, np.uint8)
    cast = cast_votes(
        read_only(answer.probability, np.float32),
        read_only(answer.heads.reshape(-1), np.float32),
        answer.row_starts(),
        answer.column_starts(),
        (min(height, shape[0]), min(width, shape[1])),
        np.float32(threshold),
        np.float32(answer.unit),
        rules,
        votes,
        numbers,
        labels,
        support,
    )
    if cast.places.size == 0:
        return SeparatedNuclei(labels, np.zeros((0, 2), np.int64), support)
    roots = follow_links(votes, numbers, np.empty(shape, np.uint16), cast, BLOCK, rules)
    kept = np.flatnonzero(roots.strong & (roots.areas >= max(min_area, 1)))
    kept = kept[np.argsort(roots.places[kept])]
    names = np.zeros(roots.places.size, np.int32)
    names[kept] = np.arange(1, kept.size + 1)
    label_pixels(labels, support, names[roots.root_of], roots.close, rules.reach)
    return SeparatedNuclei(labels, np.stack(np.divmod(roots.places[kept], shape[1]), axis=1), support)


def foreground(answer: NetworkOutput, height: int, width: int, *, threshold: float, **_: int) -> SeparatedNuclei:
    """The plain mask as label 1, without roots; a pixel's support is its probability.

    Arguments as for `separate`, of which all but the threshold change nothing.
    """
    inside = answer.inside(height, width, threshold)
    support = np.zeros(answer.shape, np.uint8)
    weight = np.rint(answer.probability[inside] * np.float32(VOTE)).astype(np.int32)
    support[inside] = supported(weight, REACH**2)
    return SeparatedNuclei(inside.astype(np.int32), np.zeros((0, 2), np.int64), support)


def certainty(answer: NetworkOutput, height: int, width: int, *, threshold: float) -> float:
    """Mean probability of the pixels above the threshold; as `instances.certainty`."""
    parts = np.rint(answer.probability[answer.inside(height, width, threshold)] * np.float32(VOTE))
    count = np.float32(max(parts.size, 1))
    return float(np.float32(parts.sum(dtype=np.float64)) / (np.float32(VOTE) * count))


def on_native_grid(
    one: SeparatedNuclei,
    answer: NetworkOutput,
    probability: NDArray[np.float32],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    *,
    threshold: float,
) -> SeparatedNuclei:
    """Labels and support brought to the image's own grid, as `Program.native` does; roots stay where they are.

    probability: the foreground's on that grid, (height, width). rows, columns: the nearest pixels of the answer. Few
    pixels are just outside of a nucleus there, so only those look for one beside them.
    """
    from nucseg_batch.arrays.kernels.native_grid import to_native_grid

    if (rows.size, columns.size) != probability.shape:
        raise ValueError(f"{rows.size} rows and {columns.size} columns do not fit probabilities {probability.shape}.")
    if not one.labels.shape == one.support.shape == answer.probability.shape:
        raise ValueError(f"labels {one.labels.shape} must have the answer's shape, {answer.probability.shape}.")
    labels, support = to_native_grid(
        read_only(one.labels, np.int32),
        read_only(one.support, np.uint8),
        read_only(answer.probability, np.float32),
        read_only(probability, np.float32),
        read_only(rows, np.int64),
        read_only(columns, np.int64),
        np.float32(threshold),
    )
    return SeparatedNuclei(labels, one.roots, support)


BY_TASK: Mapping[Task, Callable[..., SeparatedNuclei]] = {"instances": separate, "semantic": foreground}
"""How the answer of a network for each task becomes labels; arguments as for `separate`."""
