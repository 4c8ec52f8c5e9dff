"""Folders of small images under odd names, through the whole program with a threshold for a network.

`python tests/fuzz/names.py --minutes 30` makes one folder after the other until the time is over, and ends with the
names of the first folder that breaks an invariant of `check`. `--seed` begins elsewhere; a folder depends on its seed
alone. The short run of the suite is test_names.py.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import random
import shutil
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_runs import Threshold, picture

import nucseg_batch
from nucseg_batch.cli.main import main
from nucseg_batch.executors import local
from nucseg_batch.files.names import file_name

LONGEST = 255
"""Bytes that a file name has at most."""
PIECES = (
    *"\r\n\t\v\f\b\a\x01\x1b\x1c\x1d\x1e\x1f\x7f\x85\xa0",
    *"\u2028\u2029\u200b\u200e\u200f\u202a\u202e\u2066\ufeff\ufffe\U000e0001\U0010ffff",
    *("\r\n", '"', '""', "'", ",", ";", "\\", "\\n", "`", "$(x)", "|", "*", "?", "[a]", "{}", "<b>", "&amp;", "]]>"),
    *("%", "%0D", "%FF", "%2F", "%%", "#", "~", "=1+1", "+1", "-1", "@x", " ", "  ", ".", "..", "NA", "nan", "None"),
    *("\udcff", "\udc80\udcfe", "é", "e\u0301", "\u212b", "\u00c5", "ﬁ", "İ", "ı", "ß", "ẞ", "ǆ", "א", "ع", "漢", "한"),
    *("😀", "👩\u200d🔬", "🏳️\u200d🌈", "e" + "\u0301" * 20, "n" * 90, "界" * 40, "[bold]x", "\x1b[31m", "\x1b]0;t\a"),
)
"""What names are made of: whatever separates, quotes, escapes, is not seen, or is no text."""
SUFFIXES = (".tif", ".tiff", ".TIF", ".Tiff")


def odd_names(seed: int, count: int = 12) -> list[str]:
    """So many different file names; the same for a seed."""
    chance = random.Random(seed)
    found: dict[bytes, str] = {}
    while len(found) < count:
        pieces = [chance.choice(PIECES) for _ in range(chance.randint(1, 5))]
        if chance.random() < 0.5:
            pieces.insert(chance.randint(0, len(pieces)), _any_character(chance))
        stem = "".join(pieces)
        if chance.random() < 0.2:
            stem = unicodedata.normalize(chance.choice(("NFC", "NFD")), stem)
        name = stem.replace("/", "").replace("\0", "") + chance.choice(SUFFIXES)
        if not name.startswith(".") and len(os.fsencode(name)) <= LONGEST:
            found.setdefault(os.fsencode(name), name)
    return [os.fsdecode(name) for name in found]


def _any_character(chance: random.Random) -> str:
    while True:
        character = chr(chance.randint(1, sys.maxunicode))
        if not "\ud800" <= character <= "\udfff":
            return character


def rfc4180(text: str) -> list[list[str]]:
    """The rows of a table by the grammar of RFC 4180, written without the csv module; ValueError for anything else."""
    rows: list[list[str]] = []
    row: list[str] = []
    place = 0
    while place < len(text):
        if text[place] == '"':
            cell, place = _quoted(text, place + 1)
        else:
            end = min(i for i in (text.find(c, place) for c in ",\n") if i >= 0)
            cell, place = text[place:end], end
            if set(cell) & set('"\r'):
                raise ValueError(f"{cell!r} is not quoted")
        row.append(cell)
        if text[place] == "\n":
            rows.append(row)
            row = []
        elif text[place] != ",":
            raise ValueError(f"{text[place]!r} after a quoted cell")
        place += 1
    return rows


def _quoted(text: str, place: int) -> tuple[str, int]:
    cell = ""
    while True:
        end = text.index('"', place)
        cell += text[place:end]
        if text[end + 1] != '"':
            return cell, end + 1
        cell, place = cell + '"', end + 2


def call(*arguments: object) -> tuple[int, str]:
    """A command of the program: its exit code, and all that it prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            return int(ended.code or 0), said.getvalue()
    raise AssertionError("main always exits")


def run(*arguments: object) -> str:
    """The same of a command that must work, and print nothing that a terminal would obey."""
    code, said = call(*arguments)
    assert code == 0, f"{arguments[0]} ended with {code}: {said}"
    odd = {c for c in said if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert not odd, f"{arguments[0]} printed {odd}: {said!r}"
    return said


def check(names: Iterable[str], place: Path, *, results: bool = True) -> None:
    """Makes a folder of images with these names in an empty folder, and holds what must be true of any names.

    results: whether reports, exports and pictures are made, too, which takes most of the time.
    """
    local.load_predictor = lambda *_, **__: Threshold()
    images, store = place / "in", place / "out.zarr"
    images.mkdir()
    wanted = {}
    for number, name in enumerate(names):
        tifffile.imwrite(images / name, picture(number + 1, (64, 65 + number)))
        wanted[name] = number + 1
    settings = ("--diameter", 26, "--channel", "grey")
    run("segment", images, store, *settings, "-v")
    tables = {path.name: path.read_bytes() for path in place.glob("out.*.csv")}
    assert sorted(tables) == ["out.failures.csv", "out.images.csv", "out.nuclei.csv"]
    counts: dict[str, int] = {}
    for name, data in tables.items():
        text = data.decode("utf-8")
        rows = rfc4180(text)
        assert rows == list(csv.reader(io.StringIO(text, newline=""), strict=True)), name
        assert {len(row) for row in rows} == {len(rows[0])}, name
        if name == "out.images.csv":
            found = [file_name(row[0]) for row in rows[1:]]
            assert sorted(found) == sorted(wanted), "each image has one row"
            assert all(row[1] == "ok" for row in rows[1:])
        if name == "out.nuclei.csv":
            for row in rows[1:]:
                counts[file_name(row[0])] = counts.get(file_name(row[0]), 0) + 1
    assert counts == wanted, "each nucleus has one row, under its image's name"
    for library in ("pandas", "polars"):
        frame = nucseg_batch.read_images(store, library=library)
        assert sorted(map(file_name, frame["image"])) == sorted(wanted), library
    masks = nucseg_batch.open_masks(store)
    assert {name: int(np.asarray(mask).max()) for name, mask in masks.items()} == wanted
    assert "everything was done already" in run("segment", images, store, *settings)
    assert {path.name: path.read_bytes() for path in place.glob("out.*.csv")} == tables
    log = (place / "out.run" / "log.txt").read_text(encoding="utf-8")
    assert all(line[:2] == "20" for line in log.split("\n") if line), "each line of the log begins with its time"
    for command in (("verify", store), ("finish", store), ("status", store), ("inspect", images)):
        run(*command)
    if not results:
        return
    run("report", store)
    run("export", store, place / "exported", "--format", "tiff", "--format", "parquet")
    exported = [path for path in (place / "exported").rglob("*") if path.name.endswith((".tif", ".tiff"))]
    assert len(exported) == len(wanted), "each image has one file"
    run("overlay", store, place / "pictures")
    assert len(list((place / "pictures").rglob("*.png"))) == len(wanted)


def fuzz(minutes: float, seed: int) -> int:
    """Checks folders until the time is over, and returns how many; AssertionError names the seed that fails."""
    end, done = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end:
        place = Path(tempfile.mkdtemp(prefix="nucseg-names-"))
        try:
            check(odd_names(seed + done), place)
        except Exception as error:
            raise AssertionError(f"seed {seed + done}: {[ascii(name) for name in odd_names(seed + done)]}") from error
        finally:
            shutil.rmtree(place)
        done += 1
    return done


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    print(f"{fuzz(chosen.minutes, chosen.seed)} folders, seeds from {chosen.seed}: all right")
