"""The list of pages of a TIFF, walked to its end before anything is made of it.

A TIFF's pages form a linked list, and a reader that meets a broken link has every reason to stop there and give what it
has: a file that was cut looks like a shorter one, a circle like any number of pages. So the links are followed here
first, and a list that does not end as it should is refused. The walk also collects of each page what tells whether all
pages are of one kind.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from nucseg_batch.errors import ImageError

MAX_TAGS = 4096
"""A page with more tags than this is damaged."""
MAX_SUB_PAGES = 4096
"""Pages below one page; more are damage or malice."""
_FIRST_READ = 512
"""Bytes that hold most pages' tags."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each TIFF type."""
_SUBFILE, _WIDTH, _LENGTH, _SUB_PAGES = 254, 256, 257, 330
_NDPI, _FLEX = 65420, 65200
_MAKERS = {_NDPI: "ndpi", _FLEX: "flex"}
"""Tags of the first page that tell whose file it is, where pages mean something else then."""
_KIND = frozenset({256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339})
"""Tags that pages must share to be decoded alike."""
_NEEDED = _KIND | {254, 270, 273, 279, 320, 324, 325, 330, 347, 50838, 50839}
"""Tags whose values must lie within the file."""


@dataclass(frozen=True)
class TiffPage:
    """One page as its tags describe it."""

    offset: int
    """Where its tags begin."""
    kind: bytes
    """Equal for pages that are decoded alike."""
    height: int
    """Rows."""
    width: int
    """Columns."""
    reduced: bool
    """Whether it calls itself a smaller copy or a mask of another page."""
    tag_bytes: int
    """Bytes of its tags, from their number to the link to the next page."""
    maker: str = ""
    """`ndpi` or `flex` for the first page of such a file."""


@dataclass(frozen=True)
class _Format:
    """How a TIFF writes numbers: classic or big, and in which byte order."""

    count: struct.Struct
    entry: struct.Struct
    link: struct.Struct
    order: str
    inline: int


def walk(fd: int, size: int) -> tuple[TiffPage, ...]:
    """All pages of a TIFF of `size` bytes that is open as `fd`, in order.

    Raises ImageError where the list of pages does not end within the file, meets itself, or has tags whose values lie
    beyond the end of the file.
    """
    head = os.pread(fd, 16, 0)
    form = _format(head)
    at = _number(form.link, head, 8 if form.inline == 8 else 4)
    if at == 0:
        raise ImageError("the TIFF holds no image.")
    pages: list[TiffPage] = []
    seen: set[int] = set()
    total = 0
    while at:
        if at in seen:
            raise ImageError(f"the TIFF's list of pages runs in a circle after {len(pages)}: the file is damaged.")
        seen.add(at)
        page, after, used = _page(fd, at, size, form, len(pages))
        total += used
        if total > size:
            raise ImageError("the TIFF's pages overlap each other: the file is damaged.")
        pages.append(page)
        if after is None:  # NDPI links its pages in a way of its own, by 64 bits
            break
        at = after
    return tuple(pages)


def _format(head: bytes) -> _Format:
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 8 else 0
    if order and version == 42:
        return _Format(struct.Struct(f"{order}H"), struct.Struct(f"{order}HHI4s"), struct.Struct(f"{order}I"), order, 4)
    if order and version == 43 and len(head) == 16:
        return _Format(struct.Struct(f"{order}Q"), struct.Struct(f"{order}HHQ8s"), struct.Struct(f"{order}Q"), order, 8)
    raise ImageError("the TIFF ends within its first bytes: it was cut.")


def _number(form: struct.Struct, data: bytes, at: int) -> int:
    return int(form.unpack_from(data, at)[0])


def _page(fd: int, at: int, size: int, form: _Format, number: int) -> tuple[TiffPage, int | None, int]:
    """The page at an offset, where the next one is, and how many bytes its tags take."""
    cut = ImageError(f"the TIFF is truncated: page {number} lies beyond the end of the file.")
    if at + form.count.size > size:
        raise cut
    data = os.pread(fd, _FIRST_READ, at)
    tags = _number(form.count, data, 0)
    if not 0 < tags <= MAX_TAGS:
        raise ImageError(f"page {number} of the TIFF has {tags} tags: the file is damaged.")
    link = form.count.size + tags * form.entry.size
    used = link + form.link.size
    if at + used > size:
        raise cut
    if used > len(data):
        data = os.pread(fd, used, at)
    kind: list[bytes] = []
    values = {_SUBFILE: 0, _WIDTH: 0, _LENGTH: 0}
    maker = ""
    for place in range(form.count.size, link, form.entry.size):
        tag, typed, count, value = form.entry.unpack_from(data, place)
        if tag not in _NEEDED:
            maker = _MAKERS.get(tag, maker) if number == 0 else ""
            continue
        bytes_ = _SIZES.get(typed, 0) * count
        if bytes_ > form.inline and int.from_bytes(value, "little" if form.order == "<" else "big") + bytes_ > size:
            raise ImageError(f"the TIFF is truncated: tag {tag} of page {number} lies beyond the end of the file.")
        if tag == _SUB_PAGES and count > MAX_SUB_PAGES:
            raise ImageError(f"page {number} of the TIFF has {count} pages below it: the file is damaged.")
        if tag in _KIND:
            start = place if bytes_ <= form.inline else None
            kind.append(data[start : place + form.entry.size] if start is not None else data[place : place + 8])
        if tag in values and count == 1 and typed in (3, 4, 16):
            values[tag] = struct.unpack_from(form.order + {3: "H", 4: "I", 16: "Q"}[typed], value)[0]
    if maker == "ndpi" and (form.inline, form.order) != (4, "<"):
        maker = ""
    after = None if maker == "ndpi" else _number(form.link, data, link)
    reduced = bool(values[_SUBFILE] & 0b101)
    page = TiffPage(at, b"".join(kind), values[_LENGTH], values[_WIDTH], reduced, used, maker)
    return page, after, used
