"""Fuzzes TIFF headers: valid files of many kinds with a few numbers of their tags changed, read as the program reads.

    python tests/fuzz/tiff_headers.py --minutes 30

Whatever a file says of itself, opening it and reading it ends in one of two ways: an ImageError, or planes whose sides
some page of the file has and whose pixels the file can hold. What does not is written to `--keep` and printed. The same
seed makes the same files.
"""

from __future__ import annotations

import argparse
import io
import math
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import tifffile
from numpy.random import Generator

from nucseg_batch.errors import ImageError
from nucseg_batch.files.images import open_file

MAX_PIXELS = 10**7
SECONDS = 20
"""After which reading one small file counts as a hang."""
EDGES = (0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 64, 255, 256, 257, 4096, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
TAGS = (254, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330)
TAGS += (338, 339, 347, 700, 32997, 34412, 50838, 50839, 65200, 65420)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def corpus() -> dict[str, bytes]:
    """Valid TIFFs by a name of their kind; a few kilobytes each, with sides that differ."""
    rng = np.random.default_rng(20)
    grey = rng.integers(0, 255, (37, 53), np.uint8)
    deep = rng.integers(0, 4000, (41, 29), np.uint16)
    stack = rng.integers(0, 255, (5, 23, 31), np.uint8)
    colour = rng.integers(0, 255, (34, 45, 3), np.uint8)
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "grey": (grey, {}),
        "big": (grey, {"bigtiff": True}),
        "motorola": (deep, {"byteorder": ">"}),
        "float": (deep.astype(np.float32), {}),
        "strips": (grey, {"rowsperstrip": 5}),
        "tiles": (deep, {"tile": (16, 16), "compression": "zlib", "predictor": True}),
        "lzw": (grey, {"compression": "lzw"}),
        "zstd": (deep, {"compression": "zstd"}),
        "jpeg": (grey, {"compression": "jpeg"}),
        "rgb jpeg": (colour, {"compression": "jpeg", "tile": (16, 32)}),
        "rgb": (colour, {"photometric": "rgb"}),
        "planar": (np.moveaxis(colour, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "white": (grey, {"photometric": "miniswhite"}),
        "palette": (grey, {"photometric": "palette", "colormap": rng.integers(0, 65535, (3, 256), np.uint16)}),
        "bits": (grey > 128, {"photometric": "minisblack"}),
        "imagej": (stack.reshape(5, 1, 23, 31), {"imagej": True, "metadata": {"axes": "ZCYX"}}),
        "imagej run": (stack.reshape(5, 1, 23, 31), {"imagej": True, "metadata": {"axes": "TCYX"}, "truncate": True}),
        "ome": (stack, {"ome": True, "metadata": {"axes": "ZYX"}}),
        "ome channels": (stack[:4].reshape(2, 2, 23, 31), {"ome": True, "metadata": {"axes": "TCYX"}}),
        "shaped": (stack, {"photometric": "minisblack"}),
        "shaped run": (stack, {"photometric": "minisblack", "truncate": True}),
        "plain pages": (stack, {"photometric": "minisblack", "metadata": None}),
        "volume": (stack[:4], {"photometric": "minisblack", "volumetric": True, "tile": (2, 16, 16)}),
    }
    files = {}
    for name, (pixels, options) in kinds.items():
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, **options)
        files[name] = file.getvalue()
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(deep, subifds=1, tile=(16, 16))
        writer.write(deep[::2, ::2], subfiletype=1, tile=(16, 16))
    return files | {"pyramid": file.getvalue()}


def entries(data: bytes) -> Iterator[tuple[int, int, int, str]]:
    """Page, place, tag and byte order of every tag of a TIFF; ends where the file makes no sense."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    head, size, link = (8, 20, "Q") if big else (2, 12, "I")
    seen = set()
    while at and at not in seen and at + head <= len(data):
        seen.add(at)
        count = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        if count > 200 or at + head + count * size + struct.calcsize(link) > len(data):
            return
        for number in range(count):
            place = at + head + number * size
            yield len(seen) - 1, place, struct.unpack_from(order + "H", data, place)[0], order + ("Q" if big else "I")
        at = struct.unpack_from(order + link, data, at + head + count * size)[0]


def sides(data: bytes) -> set[tuple[int, int]]:
    """Height and width of every page, as its tags 257 and 256 say first."""
    found: dict[int, dict[int, int]] = {}
    for page, place, tag, form in entries(data):
        if tag in (256, 257):
            order, word = form
            typed = struct.unpack_from(order + "H", data, place + 2)[0]
            code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(typed, word)
            value = struct.unpack_from(order + code, data, place + 4 + struct.calcsize(word))[0]
            found.setdefault(page, {}).setdefault(tag, value)
    return {(page.get(257, 0), page.get(256, 0)) for page in found.values()}


def changed(data: bytes, rng: Generator) -> bytes:
    """The file with one to three things of its header changed."""
    new = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        places = list(entries(bytes(new)))
        if not places:
            break
        _, place, _, form = places[int(rng.integers(len(places)))]
        order, word = form[0], form[1]
        wide = struct.calcsize(word)
        typed, count = struct.unpack_from(order + "H" + word, new, place + 2)
        match int(rng.integers(9)):
            case 0:
                struct.pack_into(order + "H", new, place, int(rng.choice(TAGS)))
            case 1:
                struct.pack_into(order + "H", new, place + 2, int(rng.integers(0, 20)))
            case 2:
                near = (count + 1, max(0, count - 1), 2 * count, int(rng.choice(EDGES)))
                struct.pack_into(order + word, new, place + 4, near[int(rng.integers(4))] % 2 ** (8 * wide))
            case 3 | 4 | 5:
                code = {3: "H", 8: "h", 1: "B"}.get(typed, word)
                old = struct.unpack_from(order + code, new, place + 4 + wide)[0]
                near = (old + 1, old - 1, 2 * old, old // 2, int(rng.choice(EDGES)), int(rng.choice(EDGES)))
                value = near[int(rng.integers(len(near)))] % 2 ** (8 * struct.calcsize(code))
                struct.pack_into(order + code.upper(), new, place + 4 + wide, value)
            case 6:  # a byte of what the value points to: arrays of offsets, descriptions
                size = _SIZES.get(typed, 1) * count
                start = struct.unpack_from(order + word, new, place + 4 + wide)[0]
                if size > wide and 0 < start < len(new):
                    spot = min(len(new) - 1, start + int(rng.integers(max(1, min(size, 4000)))))
                    new[spot] = int(rng.choice([0, 48, 49, 57, 255, int(rng.integers(256))]))
            case 7:
                other = places[int(rng.integers(len(places)))][1]
                length = 4 + 2 * wide
                new[place : place + length], new[other : other + length] = (
                    new[other : other + length],
                    new[place : place + length],
                )
            case 8:
                new = new[: int(rng.integers(8, len(new)))] if rng.random() < 0.5 else new + bytes(64)
    return bytes(new)


class HangError(Exception):
    """Reading took longer than any small file may."""


def _hang(*_: int | FrameType | None) -> None:
    raise HangError(f"longer than {SECONDS} s")


def check(path: Path, data: bytes) -> str:
    """How reading a file ends: `refused` or `read`; raises AssertionError or what it should not raise."""
    path.write_bytes(data)
    try:
        source = open_file(path, max_pixels=MAX_PIXELS)
    except ImageError:
        return "refused"
    header = source.header
    height, width = header.length("Y"), header.length("X")
    assert (height, width) in sides(data), f"planes of {height} x {width}, which no page has"
    planes = math.prod(header.length(axis) for axis in "TZ")
    assert planes <= len(data), f"{planes} planes in {len(data)} bytes"
    where = [(0, 0), (header.length("T") - 1, header.length("Z") - 1)]
    try:
        for t, z in where:
            whole = source.read(t, z, slice(0, height), slice(0, width))
            assert (height, width) in (whole.shape[:2], whole.shape[1:]), f"pixels of {whole.shape}"
            assert whole.dtype == np.dtype(header.dtype), f"pixels of {whole.dtype}, not {header.dtype}"
            rows, columns = slice(height // 3, height), slice(0, max(1, width // 2))
            part = source.read(t, z, rows, columns)
            colour = whole.shape[:2] == (height, width)
            same = whole[rows, columns] if colour else whole[:, rows, columns]
            np.testing.assert_array_equal(part, same, "a window differs from the plane")
    except ImageError:
        return "refused"
    finally:
        source.close()
    return "read"


def fuzz(*, seed: int, files: int | None, seconds: float | None, keep: Path) -> tuple[Counter[str], list[str]]:
    """Reads changed files until so many are read or the time is over.

    Returns how often each end came, and a line for each file that ended otherwise.
    """
    rng = np.random.default_rng(seed)
    kinds = list(corpus().items())
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    until = None if seconds is None else time.monotonic() + seconds
    signal.signal(signal.SIGALRM, _hang)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "image.tif"
        number = 0
        while (files is None or number < files) and (until is None or time.monotonic() < until):
            name, data = kinds[number % len(kinds)]
            data = changed(data, rng)
            signal.alarm(SECONDS)
            try:
                ends[check(path, data)] += 1
            except Exception as error:  # whatever it is, it is a finding
                last = traceback.extract_tb(error.__traceback__)[-1]
                kept = keep / f"seed{seed}-{number}.tif"
                keep.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)
                text = " ".join(str(error).split())[:160]
                wrong.append(f"{kept.name} ({name}): {type(error).__name__}: {text} [{last.name}:{last.lineno}]")
                ends["wrong"] += 1
            finally:
                signal.alarm(0)
            number += 1
    return ends, wrong


def main() -> None:
    """Prints findings; exit code 1 where there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    arguments = parser.parse_args()
    ends, wrong = fuzz(seed=arguments.seed, files=None, seconds=60 * arguments.minutes, keep=arguments.keep)
    print("\n".join(wrong))
    print(", ".join(f"{count} {end}" for end, count in sorted(ends.items())))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
