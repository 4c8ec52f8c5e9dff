"""The file of a plan: one line per image, so that millions are written and read without being in memory at once.

The whole is JSON. Images come first, in the order of the plan, and then one line with all else: the height and width of
each label array and the number, channels and pixel sizes of its images; where every BLOCK-th image begins; and the hash
of all lines of images. A reader keeps the bytes and makes records only of the images that are asked for: one share of
many needs few of them.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from nucseg_batch.errors import MismatchError
from nucseg_batch.files.atomic_write import whole_file
from nucseg_batch.plan import Failure, ImageInfo, KnownImages, LabelArray, Plan
from nucseg_batch.settings import SegmentSettings

FORMAT = 2
"""Version of the file's layout. Files of version 0.2 of the program have none."""
BLOCK = 256
"""Images that are made into records together."""
KEPT_BLOCKS = 64
"""Blocks whose records are kept: those of the units that are in work, where units hold images by the thousand."""
_START, _BETWEEN, _END = b'{"images": [\n', b'\n],\n"plan": ', b"}\n"


class PlannedImages(KnownImages):
    """The images of a label array of a plan that was read: records are made as they are asked for, equal each time."""

    def __init__(
        self, lines: _Lines, first: int, count: int, names: Sequence[str], sizes: Sequence[float | None]
    ) -> None:
        self._lines, self._first, self._count = lines, first, count
        self.channel_names, self.pixel_sizes = tuple(names), frozenset(sizes)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ImageInfo: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ImageInfo, ...]: ...

    def __getitem__(self, index: int | slice) -> ImageInfo | tuple[ImageInfo, ...]:
        places = range(self._first, self._first + self._count)[index]
        if isinstance(places, int):
            return self._lines.image(places)
        if places.step == 1:
            return tuple(self._lines.images(places.start, places.stop))
        return tuple(map(self._lines.image, places))

    def __iter__(self) -> Iterator[ImageInfo]:
        return self._lines.images(self._first, self._first + self._count)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(one == another for one, another in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))


class PlannedFiles(Mapping[str, tuple[int, int]]):
    """Size and time of last change of everything that was found, by key: of the images of a plan, and of others.

    It is put together when it is first asked for; most processes of a run never do.
    """

    def __init__(self, plan: Plan, others: Mapping[str, tuple[int, int]]) -> None:
        self._plan = plan
        self.others = dict(others)
        """Those of what was found and is no image of the plan."""

    @functools.cached_property
    def _all(self) -> dict[str, tuple[int, int]]:
        images = itertools.chain.from_iterable(label_array.images for label_array in self._plan.label_arrays)
        return {image.key: (image.size, image.mtime_ns) for image in images} | self.others

    def __getitem__(self, key: str) -> tuple[int, int]:
        return self._all[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


class _Lines:
    """The lines of all images of a plan, as the bytes that they are in its file. Threads may ask at once."""

    def __init__(self, content: bytes, offsets: Sequence[int]) -> None:
        self._content, self._offsets = content, offsets
        self._block = functools.lru_cache(maxsize=KEPT_BLOCKS)(self._read)

    def image(self, line: int) -> ImageInfo:
        """The image of a line."""
        return self._block(line // BLOCK)[line % BLOCK]

    def images(self, start: int, stop: int) -> Iterator[ImageInfo]:
        """The images of some lines."""
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            first = block * BLOCK
            yield from self._block(block)[max(0, start - first) : max(0, stop - first)]

    def _read(self, block: int) -> list[ImageInfo]:
        text = self._content[self._offsets[block] : self._offsets[block + 1]].strip(b",\n")
        return [ImageInfo(*[_plain(value) for value in values]) for values in json.loads(b"[%b]" % text)]


def write_plan(path: Path, plan: Plan, more: Mapping[str, Any], portion: int = 0) -> None:
    """Writes a plan and what else is to be known of its run; it is whole and on disk when this returns.

    portion: of which portion of the run all its label arrays are.
    """
    offsets: list[int] = []
    digest, at = hashlib.sha256(), len(_START)
    images = itertools.chain.from_iterable(label_array.images for label_array in plan.label_arrays)
    with whole_file(path) as file:
        file.write(_START)
        while block := list(itertools.islice(images, BLOCK)):
            text = b",\n".join(_ENCODER.encode(_values(image)).encode("ascii") for image in block)
            text = b",\n" + text if offsets else text
            offsets.append(at)
            at += len(text)
            digest.update(text)
            file.write(text)
        rest = {
            **more,
            **({"portion": portion} if portion else {}),
            "format": FORMAT,
            "failures": [dataclasses.astuple(failure) for failure in plan.failures],
            "label_arrays": [_label_array_values(label_array) for label_array in plan.label_arrays],
            "offsets": [*offsets, at],
            "sha256": digest.hexdigest(),
        }
        file.write(_BETWEEN + json.dumps(rest, sort_keys=True).encode("ascii") + _END)


def read_plan(path: Path) -> tuple[Plan, dict[str, Any]]:
    """What `write_plan` was given, whose second part must have `settings`, as `dataclasses.asdict` makes them.

    Raises OSError, MismatchError for a file of another format, and ValueError, KeyError or TypeError for a damaged one.
    """
    content = path.read_bytes()
    middle = content.rfind(_BETWEEN)
    if not content.startswith(_START) or middle < 0 or not content.endswith(_END):
        raise ValueError("it has no lines of images")
    more: dict[str, Any] = json.loads(content[middle + len(_BETWEEN) : -len(_END)])
    if (written := more.pop("format", 1)) != FORMAT:
        version = more.get("fingerprint", {}).get("nucseg-batch", "another version")
        raise MismatchError(
            f"{path} was written by nucseg-batch {version} in format {written}; this version reads format {FORMAT}. "
            "Use that version to continue the run, or start over with --overwrite."
        )
    with memoryview(content) as view:
        if hashlib.sha256(view[len(_START) : middle]).hexdigest() != more.pop("sha256"):
            raise ValueError("its images are not as they were written")
    lines, first, settings = _Lines(content, more.pop("offsets")), 0, SegmentSettings(**more["settings"])
    label_arrays, portion = [], int(more.pop("portion", 0))
    for height, width, count, *known in more.pop("label_arrays"):
        images = PlannedImages(lines, first, count, *known)
        label_arrays.append(
            LabelArray(height, width, images, settings.region, settings.labels, settings.link == "z", portion)
        )
        first += count
    return Plan(tuple(label_arrays), tuple(Failure(*values) for values in more.pop("failures"))), more


def _label_array_values(label_array: LabelArray) -> list[Any]:
    """A label array as a list, without its images."""
    sizes = sorted(label_array.pixel_sizes, key=lambda size: (size is not None, size))
    return [label_array.height, label_array.width, len(label_array.images), label_array.channel_names, sizes]


def _values(image: ImageInfo) -> list[Any]:
    """An image as a list, without the last fields where these are what they are for most images."""
    values = list(_FIELDS(image))
    while values[-1] == _DEFAULTS[len(values) - 1]:
        values.pop()
    return values


def _plain(value: Any) -> Any:
    """A value of a record from that of its line."""
    return tuple(value) if type(value) is list else value


_ENCODER = json.JSONEncoder()
_FIELDS = operator.attrgetter(*(field.name for field in dataclasses.fields(ImageInfo)))
_DEFAULTS = [field.default for field in dataclasses.fields(ImageInfo)]
