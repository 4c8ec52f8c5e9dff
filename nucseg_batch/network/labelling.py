"""From raw pixels to labels, in two ways that give the same: all on the device, or the last step on the host.

A GPU separates nuclei where the network has just answered, and only labels come back. Where the network runs on the
processor itself, nothing need come back from anywhere, and `arrays.host_instances` separates about ten times as fast as
the device's program would there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nucseg_batch.arrays import host_instances
from nucseg_batch.arrays.host_instances import NetworkOutput
from nucseg_batch.arrays.outputs import OFFSET_UNIT
from nucseg_batch.arrays.separated import SeparatedNuclei
from nucseg_batch.network.program import LOOK_REACH, Banded, Grid, Program

Real = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Heights and widths of the real part of each image of a batch, in pixels at the network's scale."""
Ways = tuple[tuple[Any, Any], Grid]
"""How images are rescaled for the network, and how their labels return; as `Frame.there` and `Frame.back`."""
Answer = Callable[[Callable[..., Any]], Any]
"""Gives the network's answer by way of `Program.run`, so that it is fetched, or of `Program.call`."""
Cut = tuple[slice, slice]
"""Rows and columns of an answer."""


@dataclass(frozen=True)
class LabelledImage:
    """What was found in one image of a batch."""

    labels: NDArray[np.int32] | NDArray[np.uint16]
    """(height, width): 0 is background, 1..n are nuclei."""
    support: NDArray[np.uint8]
    """(height, width): how far each pixel supports its nucleus, see `arrays.confidence`."""
    certainty: float = 1.0
    """In a look, how certain the foreground is."""


class Separation(Protocol):
    """A network with what makes labels of its answers."""

    @property
    def program(self) -> Program:
        """What runs on the device."""
        ...

    def batch(
        self, pixels: NDArray[Any], low: NDArray[Any], gain: NDArray[Any], real: Real, ways: Ways | None, count: int
    ) -> list[LabelledImage]:
        """What is in the first `count` images, as `Program.label` and, with ways, `Program.label_rescaled`."""
        ...

    def tile(self) -> contextlib.AbstractContextManager[object]:
        """A block in which a tile of a large image is done: `joined`, then `window`."""
        ...

    def joined(self, strips: Iterable[tuple[Answer, Cut]], rows: int) -> Any:
        """The network's answer for a window, folded, (1, rows, width, channels), where `window` needs it.

        strips: for each strip of the window, from the top, what gives the network's answer, when it is called with
        `Program.run` or `Program.call`; and the rows and columns of that answer that are the strip.
        """
        ...

    def separated(self, heads: Any, real: Real) -> list[NDArray[np.int32]]:
        """Labels of a batch from its answers, at the network's scale; as `Program.separate`."""
        ...

    def window(self, heads: Any, real: Real, back: tuple[Banded, Banded, Any, Any] | None) -> SeparatedNuclei:
        """Labels, roots and support of the one image of these answers.

        As `Program.separate_rooted` and, with a way `back` to another grid, `Program.native_in_bands`.
        """
        ...

    def certainty(self, heads: Any, real: Real) -> float:
        """As `Program.certainty`, of one image."""
        ...


class DeviceSeparation:
    """Everything on the device."""

    def __init__(self, program: Program, *, look: bool) -> None:
        self.program = program
        self._look = look

    def batch(
        self, pixels: NDArray[Any], low: NDArray[Any], gain: NDArray[Any], real: Real, ways: Ways | None, count: int
    ) -> list[LabelledImage]:
        """See `Separation.batch`."""
        program = self.program
        if ways is None:
            answer = program.run(
                program.look if self._look else program.label, pixels, low, gain, *real, seen=_seen(pixels, ways)
            )
        else:
            rescaled = program.look_rescaled if self._look else program.label_rescaled
            answer = program.run(rescaled, pixels, low, gain, real, *ways, seen=_seen(pixels, ways))
        labels, support, certain = answer if self._look else (*answer, np.ones(len(pixels), np.float32))
        return [LabelledImage(labels[i], support[i], float(certain[i])) for i in range(count)]

    def tile(self) -> contextlib.AbstractContextManager[object]:
        """See `Separation.tile`; nothing is waited for."""
        return contextlib.nullcontext()

    def joined(self, strips: Iterable[tuple[Answer, Cut]], rows: int) -> Any:
        """See `Separation.joined`; the answer stays on the device."""
        program = self.program
        return program.joined([program.cut(answer(program.call), *cut) for answer, cut in strips])

    def separated(self, heads: Any, real: Real) -> list[NDArray[np.int32]]:
        """See `Separation.separated`."""
        labels, _ = self.program.run(self.program.separate, heads, *real)
        return list(labels)

    def window(self, heads: Any, real: Real, back: tuple[Banded, Banded, Any, Any] | None) -> SeparatedNuclei:
        """See `Separation.window`."""
        program = self.program
        if back is None:
            labels, roots, support = program.run(program.separate_rooted, heads, *real)
        else:
            labels, roots, support = program.run(program.native_in_bands, heads, *real, *back)
        return SeparatedNuclei(labels[0], np.argwhere(roots[0]), support[0])

    def certainty(self, heads: Any, real: Real) -> float:
        """See `Separation.certainty`."""
        return float(self.program.run(self.program.certainty, heads, *real)[0])


class HostSeparation:
    """The network on the device, which is the processor; nuclei are separated by `arrays.host_instances`.

    threshold, min_area and look as for `Program`, which here serves any of them.
    """

    def __init__(self, program: Program, *, threshold: float, min_area: int, look: bool) -> None:
        self.program = program
        self._threshold = threshold
        self._options: dict[str, Any] = {"min_area": min_area, **(LOOK_REACH if look else {})}
        self._look = look

    def batch(
        self, pixels: NDArray[Any], low: NDArray[Any], gain: NDArray[Any], real: Real, ways: Ways | None, count: int
    ) -> list[LabelledImage]:
        """See `Separation.batch`."""
        program = self.program
        native, near, seen = None, None, _seen(pixels, ways)
        if ways is None:
            heads, certain = program.run(program.answers, pixels, low, gain, seen=seen)
        else:
            there, (rows, columns, *near) = ways
            heads, certain, native = program.run(
                program.answers_rescaled, pixels, low, gain, there, (rows, columns), seen=seen
            )
        found = []
        for i in range(count):
            answer, size = self._answer(heads[i], certain[i]), (int(real[0][i]), int(real[1][i]))
            with program.separating(seen):
                one = self._separated(answer, size)
                sure = host_instances.certainty(answer, *size, threshold=self._threshold) if self._look else 1.0
                if native is not None and near is not None:
                    one = host_instances.on_native_grid(one, answer, native[i], *near, threshold=self._threshold)
            found.append(LabelledImage(one.labels, one.support, sure))
        return found

    def tile(self) -> contextlib.AbstractContextManager[object]:
        """See `Separation.tile`; on few cores one at a time, because the answer for a whole window is held.

        Calls of the network for tiles run one after the other anyway: each takes most of what the `Ledger` lends.
        """
        return self.program.one_tile()

    def joined(self, strips: Iterable[tuple[Answer, Cut]], rows: int) -> NDArray[np.float32]:
        """See `Separation.joined`; one array for all strips, which are fetched one by one.

        So the backend never holds more than one strip: what it has once allocated it keeps.
        """
        whole, top = np.empty((0, 0, 0, 0), np.float32), 0
        for answer, (inside, across) in strips:
            strip = answer(self.program.run)[:, inside, across]
            whole = whole if top else np.empty((1, rows, *strip.shape[2:]), np.float32)
            whole[:, top : top + strip.shape[1]] = strip
            top += strip.shape[1]
        return whole

    def separated(self, heads: Any, real: Real) -> list[NDArray[np.int32]]:
        """See `Separation.separated`."""
        certain = self.program.run(self.program.probability, heads)
        heads = self.program.fetched(heads)
        sizes = zip(*(lengths.tolist() for lengths in real), strict=True)
        return [
            self._separated(self._answer(*one), (height, width)).labels
            for one, (height, width) in zip(zip(heads, certain, strict=True), sizes, strict=True)
        ]

    def window(self, heads: Any, real: Real, back: tuple[Banded, Banded, Any, Any] | None) -> SeparatedNuclei:
        """See `Separation.window`."""
        program, size = self.program, (int(real[0][0]), int(real[1][0]))
        with program.separating(math.prod(heads.shape[1:3]) * program.spec.block**2):
            if back is None:
                certain = program.run(program.probability, heads)
                return self._separated(self._answer(program.fetched(heads)[0], certain[0]), size)
            rows, columns, *near = back
            certain, native = program.run(program.probability_in_bands, heads, rows, columns)
            answer = self._answer(program.fetched(heads)[0], certain[0])
            one = self._separated(answer, size)
            return host_instances.on_native_grid(one, answer, native[0], *near, threshold=self._threshold)

    def certainty(self, heads: Any, real: Real) -> float:
        """See `Separation.certainty`."""
        program = self.program
        certain = program.run(program.probability, heads)
        answer = self._answer(program.fetched(heads)[0], certain[0])
        return host_instances.certainty(answer, int(real[0][0]), int(real[1][0]), threshold=self._threshold)

    def _answer(self, heads: NDArray[np.float32], certain: NDArray[np.float32]) -> NetworkOutput:
        spec = self.program.spec
        return NetworkOutput(heads, certain, spec.block, OFFSET_UNIT, spec.outputs)

    def _separated(self, answer: NetworkOutput, size: tuple[int, int]) -> SeparatedNuclei:
        return self.program.spec.head.separate_on_host(answer, *size, threshold=self._threshold, **self._options)


def _seen(pixels: NDArray[Any], ways: Ways | None) -> int:
    """Pixels of one image that the network sees: its own, or those that it is rescaled to."""
    if ways is None:
        return math.prod(pixels.shape[1:3])
    rows, columns = ways[0]
    return int(rows.shape[0] * columns.shape[0])
