from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nucseg_batch.errors import DamageError
from nucseg_batch.files.csv_rows import csv_records, csv_row, csv_rows, csv_text, open_table
from nucseg_batch.files.names import file_name, readable


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("a\rb", '"a\rb"'),
        ("a\r\n", '"a\r\n"'),
        ("\n", '"\n"'),
        ("a,b", '"a,b"'),
        ('"', '""""'),
        ("a\tb ;'", "a\tb ;'"),
        (" a ", " a "),
        ("a\v\x1c\x85\u2028b", "a\v\x1c\x85\u2028b"),
        ("=1+1", "=1+1"),
        ("a\0b", "a%00b"),
        ("a%00b", "a%2500b"),
        (0.1 + 0.2, "0.3"),
        (None, ""),
        (np.int32(7), "7"),
    ],
)
def test_a_cell_is_quoted_by_rfc_4180_and_no_more(cell: object, text: str) -> None:
    """The same bytes on every version of Python, and those of tables without odd names as ever."""
    assert csv_row([cell, "x"]) == f"{text},x"


def test_ordinary_rows_are_those_of_the_csv_module() -> None:
    """Tables of earlier versions stay what they were."""
    rows = [["a b.tif", 1, None, 0.25, 1e-9, True], ['d/ü, "q".png', -3, "", float("inf"), 123456789.0, "x\ny"], [""]]
    expected = io.StringIO()
    writer = csv.writer(expected, lineterminator="\n")
    writer.writerows([f"{v:.7g}" if isinstance(v, float) else v for v in row] for row in rows)
    assert csv_text(rows) == expected.getvalue()


def test_rows_read_back_whatever_their_cells_hold(tmp_path: Path) -> None:
    """Also a carriage return at the end of a cell, and alone."""
    rows = [["image", "n"], ["a\r", "\r"], ["\r\n\r", '"\r"'], ["", ","]]
    (tmp_path / "a.csv").write_bytes(csv_text(rows).encode())
    with open_table(tmp_path / "a.csv") as file:
        assert list(csv_rows(file)) == rows
    with open_table(tmp_path / "a.csv") as file:
        assert [record["image"] for record in csv_records(file)] == ["a\r", "\r\n\r", ""]


@pytest.mark.parametrize("text", ["a,b\n1\n", "a,b\n1,2,3\n", 'a,b\n1,"2\n', 'a,b\n"1"x,2\n', "a,b\n\udcff,1\n"])
def test_a_table_that_is_cut_or_edited_is_damage(tmp_path: Path, text: str) -> None:
    """And not rows of another length in silence."""
    (tmp_path / "a.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DamageError, match="finish"), open_table(tmp_path / "a.csv") as file:
        list(csv_records(file))


def test_no_other_file_writes_tables() -> None:
    """Which cells csv.writer quotes depends on the version of Python."""
    package = Path(__file__).parents[2] / "nucseg_batch"
    sources = {path.name: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = [name for name, text in sources.items() if "csv.writer" in text or "DictWriter" in text]
    assert found == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\rb", "a\\x0db"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\u202eb\u2028", "a\\u202eb\\u2028"),
        ("\U000e0001", "\\U000e0001"),
        ("a\nb\tc", "a b c"),
        ("\udcff", "%FF"),
        ("😀é漢", "😀é漢"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert readable(text) == shown


def test_names_with_nul_bytes_find_back() -> None:
    """Zarr stores and messages can hold them; C readers end a cell there."""
    assert file_name(csv_row(["a\0b%00"])) == "a\0b%00"


def test_pandas_and_polars_read_every_name(tmp_path: Path) -> None:
    """With their usual options, as people read tables."""
    names = ["a\r.tif", "\r\n.tif", 'q".tif', "NA", " x ", "u\u2028.tif", "t\t.tif"]
    (tmp_path / "a.csv").write_bytes(csv_text([("image", "n"), *((name, i) for i, name in enumerate(names))]).encode())
    program = (
        "import sys, pandas, polars\n"
        "a = pandas.read_csv(sys.argv[1], keep_default_na=False)['image'].tolist()\n"
        "b = polars.read_csv(sys.argv[1])['image'].to_list()\n"
        "print(ascii(a)); print(ascii(b))\n"
    )
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.csv")], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [ascii(names)] * 2
