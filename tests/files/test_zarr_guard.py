from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr_examples import Version, numbers, write_array, write_image

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.find import find_images
from nucseg_batch.files.zarr.guard import MAX_CHUNK, check_array, member_path
from nucseg_batch.files.zarr.nodes import Node
from nucseg_batch.files.zarr.source import open_zarr

TWO: dict[str, Any] = {
    "zarr_format": 2,
    "shape": [100, 90],
    "chunks": [10, 10],
    "dtype": "<u2",
    "compressor": None,
    "filters": None,
    "fill_value": 0,
    "order": "C",
}
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
THREE: dict[str, Any] = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [100, 90],
    "data_type": "uint16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10, 10]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "codecs": [BYTES],
    "fill_value": 0,
}


def grid(*shape: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(shape)}}


def shards(*inner: int, codecs: list[Any] | None = None) -> list[dict[str, Any]]:
    settings = {"chunk_shape": list(inner), "codecs": codecs or [BYTES], "index_codecs": [BYTES, {"name": "crc32c"}]}
    return [{"name": "sharding_indexed", "configuration": settings}]


def write_v2(path: Path, **changes: Any) -> Path:
    path.mkdir()
    (path / ".zarray").write_text(json.dumps(TWO | changes))
    return path


def corner(path: Path) -> Any:
    return open_zarr(path).read(0, 0, slice(0, 5), slice(0, 7))


def test_an_array_is_described_in_terms_that_both_formats_share() -> None:
    two = check_array(Node("", "array", 2, {}, TWO, 1, 1))
    three = check_array(Node("", "array", 3, {}, THREE, 1, 1))
    assert (two.shape, two.chunk, two.grid, two.file_name((3, 4))) == ((100, 90), (10, 10), (10, 9), "3.4")
    assert (three.shape, three.chunk, three.grid, three.file_name((3, 4))) == ((100, 90), (10, 10), (10, 9), "c/3/4")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": [0, 90]}, "no pixels"),
        ({"shape": [100, -90]}, "which is none"),
        ({"shape": [100, True]}, "which is none"),
        ({"shape": [100, 2**63]}, "which is none"),
        ({"shape": [100, 9.5]}, "which is none"),
        ({"shape": "large"}, "which is none"),
        ({"shape": [2] * 33, "chunks": [1] * 33}, "which is none"),
        ({"shape": [100]}, "1 axes, but chunks of 2"),
        ({"chunks": [10, 0]}, "which is none"),
        ({"chunks": [2**17, 2**17]}, "32.0 GiB"),
        ({"dtype": "|O"}, "type |O"),
        ({"dtype": "<U7"}, "type <U7"),
        ({"dtype": "<c16"}, "complex128"),
        ({"dtype": [["r", "|u1"]]}, "a record"),
        ({"dtype": "<u3"}, "damaged"),
        ({"compressor": {"id": "pickle"}}, "'pickle'"),
        ({"compressor": {"id": "imagecodecs_jpeg2k"}}, "'imagecodecs_jpeg2k'"),
        ({"filters": [{"id": "vlen-utf8"}]}, "'vlen-utf8'"),
        ({"filters": [{"id": "json2"}]}, "'json2'"),
        ({"filters": [{}]}, "damaged"),
        ({"dimension_separator": "-"}, "'-'"),
    ],
)
def test_arrays_of_format_2_that_must_not_be_read_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=r"\A[^\n]+\Z") as caught:
        check_array(Node("", "array", 2, {}, TWO | changes, 1, 1))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chunk_grid": {"name": "rectilinear"}}, "rectilinear"),
        ({"chunk_grid": grid(10)}, "2 axes, but chunks of 1"),
        ({"chunk_grid": grid(2**17, 2**17)}, "32.0 GiB"),
        ({"chunk_grid": grid(2**30, 2**30), "codecs": shards(2**12, 2**12)}, "index"),
        ({"chunk_grid": grid(2**17, 2**17), "codecs": [*shards(2**10, 2**10), {"name": "zstd"}]}, "32.0 GiB"),
        ({"chunk_grid": grid(2**18, 2**18), "codecs": shards(2**17, 2**17)}, "32.0 GiB"),
        ({"chunk_grid": grid(100, 100), "codecs": shards(30, 30)}, "do not divide"),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "'pickle'"),
        ({"codecs": [{"name": "vlen-utf8"}]}, "'vlen-utf8'"),
        ({"chunk_grid": grid(20, 20), "codecs": shards(10, 10, codecs=[{"name": "jpegxl"}])}, "'jpegxl'"),
        ({"codecs": [{"name": "transpose", "configuration": {"order": "F"}}, BYTES]}, "transposed by 'F'"),
        ({"codecs": None}, "damaged"),
        ({"data_type": "r16"}, "r16"),
        ({"data_type": "complex64"}, "complex64"),
        ({"data_type": {"name": "numpy.datetime64"}}, "a record"),
        ({"storage_transformers": [{"name": "other"}]}, "storage transformers"),
        ({"chunk_key_encoding": {"name": "suffix"}}, "'suffix'"),
    ],
)
def test_arrays_of_format_3_that_must_not_be_read_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=r"\A[^\n]+\Z") as caught:
        check_array(Node("", "array", 3, {}, THREE | changes, 1, 1))
    assert words in str(caught.value)


def test_large_shards_of_small_chunks_are_allowed() -> None:
    """Only the chunks within are decoded whole."""
    facts = check_array(
        Node("", "array", 3, {}, THREE | {"chunk_grid": grid(2**17, 2**17), "codecs": shards(2**10, 2**10)}, 1, 1)
    )
    assert facts.chunk == (2**10, 2**10)
    assert facts.chunk_bytes < MAX_CHUNK
    assert facts.sharding is not None


@pytest.mark.parametrize("name", ["..", "a/../b", "/a", "", ".", "a//b", "a\\b", "a\0b", "a\nb", None, 3, ["a"]])
def test_names_in_metadata_stay_in_the_store(name: object) -> None:
    with pytest.raises(ImageError):
        member_path("base", name)


def test_names_in_metadata_are_below_their_group() -> None:
    assert member_path("", "A/1/") == "A/1"
    assert member_path("A/1", "0") == "A/1/0"
    assert member_path("A", "é 1") == "A/é 1"


BOMB = bytes(30 * 2**20)


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("gzip", gzip.compress(BOMB)),
        ("zlib", zlib.compress(BOMB)),
        ("bz2", bz2.compress(BOMB)),
        ("lzma", lzma.compress(BOMB)),
        ("zstd", bytes(numcodecs.Zstd().encode(BOMB))),
        ("lz4", bytes(numcodecs.LZ4().encode(BOMB))),
        ("blosc", bytes(numcodecs.Blosc("zstd").encode(BOMB))),
    ],
    ids=["gzip", "zlib", "bz2", "lzma", "zstd", "lz4", "blosc"],
)
def test_a_small_chunk_that_unpacks_to_much_is_refused_before_it_does(tmp_path: Path, codec: str, data: bytes) -> None:
    root = write_v2(tmp_path / "a.zarr", compressor={"id": codec})
    (root / "0.0").write_bytes(data)
    with pytest.raises(ImageError, match=r"bomb|at most"):
        corner(root)


@pytest.mark.parametrize("sharded", [False, True])
def test_bombs_in_format_3_are_refused_in_chunks_and_shards(tmp_path: Path, sharded: bool) -> None:
    options: dict[str, Any] = {"shards": (20, 20)} if sharded else {}
    root = write_array(tmp_path / "a.zarr", numbers(100, 90), chunks=(10, 10), **options)
    file = root / "c" / "0" / "0"
    if not sharded:
        file.write_bytes(numcodecs.Zstd().encode(BOMB))
    else:
        bomb = bytes(numcodecs.Zstd().encode(BOMB))
        places = np.array([[0, len(bomb)]] * 4, "<u8").tobytes()
        file.write_bytes(bomb + bytes(numcodecs.CRC32C(location="end").encode(places)))
    for end in (5, 20):
        with pytest.raises(ImageError, match="bomb"):
            open_zarr(root).read(0, 0, slice(0, end), slice(0, end))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535, 65536 + 255, 65536 + 256, 2**20 + 3])
def test_the_size_that_a_zstandard_frame_says_is_understood(tmp_path: Path, size: int) -> None:
    from nucseg_batch.files.zarr.chunks import zstd_size

    assert zstd_size(bytes(numcodecs.Zstd().encode(bytes(size)))[:18]) == size


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("codec", [None, "blosc", "zstd", "gzip"])
@pytest.mark.parametrize("part", [0, 1, 0.5, -1], ids=["empty", "1 byte", "half", "all but a byte"])
def test_a_chunk_that_is_cut_is_an_error_and_never_zeros(
    tmp_path: Path, version: Version, codec: str | None, part: float
) -> None:
    """Blosc decodes one that lacks a byte from whatever lies behind it in memory."""
    compressor: Any = {"id": codec} if version == "0.4" else {"name": codec, "configuration": {}}
    if codec == "gzip" and version == "0.5":
        compressor["configuration"] = {"level": 1}
    root = write_array(
        tmp_path / "a.zarr", numbers(100, 90), version=version, compressors=compressor if codec else None
    )
    file = root / ("0/0" if version == "0.4" else "c/0/0")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * part) if 0 < part < 1 else int(part)])
    with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
        corner(root)


@pytest.mark.parametrize("where", ["end", "start"])
@pytest.mark.parametrize("side", [5, 40], ids=["a part", "the whole shard"])
def test_a_shard_that_is_cut_is_an_error_where_its_chunks_are_gone(tmp_path: Path, where: str, side: int) -> None:
    """With the index at the start, zarr reads the chunks behind the cut as empty."""
    root = write_array(
        tmp_path / "a.zarr",
        numbers(100, 90),
        chunks=(10, 10),
        shards={"shape": (40, 40), "index_location": where},
        compressors=None,
    )
    file = root / "c" / "0" / "0"
    data = file.read_bytes()
    for length in (0, 3, 100, 16 * 16 + 4 + 50):
        file.write_bytes(data[:length])
        with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
            open_zarr(root).read(0, 0, slice(0, side), slice(0, side))


def test_chunks_that_are_no_files_of_the_store_are_refused(tmp_path: Path) -> None:
    pipe = write_v2(tmp_path / "pipe.zarr")
    os.mkfifo(pipe / "0.0")
    with pytest.raises(ImageError, match="regular file"):
        corner(pipe)
    (tmp_path / "secret").write_bytes(bytes(200))
    link = write_v2(tmp_path / "link.zarr")
    (link / "0.0").symlink_to(tmp_path / "secret")
    with pytest.raises(ImageError, match="link"):
        corner(link)
    folder = write_v2(tmp_path / "folder.zarr", dimension_separator="/")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "0").write_bytes(bytes(200))
    (folder / "0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match="link"):
        corner(folder)
    within = write_v2(tmp_path / "within.zarr")
    (within / "1.1").write_bytes(np.full((10, 10), 7, "<u2").tobytes())
    (within / "0.0").symlink_to("1.1")
    assert (corner(within) == 7).all()


@pytest.mark.parametrize(
    ("separator", "file"), [(".", "0/0"), ("/", "0.0"), (".", "c/0/0")], ids=["nested", "flat", "format 3"]
)
def test_chunks_that_are_not_where_metadata_say_are_noticed(tmp_path: Path, separator: str, file: str) -> None:
    """Zarr finds none of them and reads an empty image without a word."""
    root = write_v2(tmp_path / "a.zarr", dimension_separator=separator)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(np.full((10, 10), 7, "<u2").tobytes())
    (trouble,) = find_images(root).troubles
    assert "separator" in trouble.message
    with pytest.raises(ImageError, match="separator"):
        open_zarr(root)


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        ("0.4", {}, 63),
        ("0.4", {"chunk_key_encoding": {"name": "v2", "separator": "."}}, 63),
        ("0.5", {}, 63),
        ("0.5", {"chunk_key_encoding": {"name": "default", "separator": "."}}, 63),
        ("0.5", {"chunk_key_encoding": {"name": "v2", "separator": "."}}, 63),
        ("0.5", {"shards": (26, 26)}, 20),
    ],
    ids=str,
)
def test_chunks_that_are_missing_are_counted(
    tmp_path: Path, version: Version, options: dict[str, Any], expected: int
) -> None:
    """Whether they are empty or lost, only the user can know."""
    root = write_array(tmp_path / "a.zarr", numbers(100, 90) + 1, version=version, chunks=(13, 13), **options)
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith((".z", "zarr."))]
    full = open_zarr(root).missing_chunks()
    assert full is not None
    assert (full.present, full.expected, full.missing, full.counted) == (len(files), len(files), 0, True)
    assert full.stored_bytes == sum(file.stat().st_size for file in files)
    files[0].unlink()
    (root / "0.0.partial").touch()
    less = open_zarr(root).missing_chunks()
    assert less is not None
    assert less.missing == 1
    if not options.get("shards"):
        assert len(files) == -(-100 // 13) * -(-90 // 13)


@pytest.mark.parametrize("side", [200, 190], ids=["whole", "a part"])
@pytest.mark.parametrize("options", [{}, {"shards": (32, 32)}], ids=["chunks", "shards"])
@pytest.mark.parametrize("pipeline", ["Batched", "Fused"])
def test_damage_of_many_chunks_makes_no_noise(
    tmp_path: Path, pipeline: str, options: dict[str, Any], side: int
) -> None:
    """Zarr reads chunks at once, and what fails after the first failure must not end up on the screen."""
    if pipeline == "Fused" and "max_workers" not in zarr.config.get("codec_pipeline"):
        pytest.skip("this zarr has one pipeline")
    root = write_image(tmp_path / "a.zarr", numbers(200, 200), "yx", chunks=(16, 16), **options)
    for number, file in enumerate(sorted(path for path in (root / "0" / "c").rglob("*") if path.is_file())):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 255
        file.write_bytes(b"" if number % 3 == 0 else bytes(data) if number % 3 == 1 else bytes(data[:-9]))
    program = (
        "import sys\n"
        "from nucseg_batch.errors import ImageError\n"
        "from nucseg_batch.files.zarr.source import open_zarr\n"
        "for _ in range(3):\n"
        "    try:\n"
        "        open_zarr(sys.argv[1]).read(0, 0, slice(0, int(sys.argv[2])), slice(0, int(sys.argv[2])))\n"
        "    except ImageError:\n"
        "        pass\n"
        "    else:\n"
        "        raise SystemExit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), str(side)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "ZARR_CODEC_PIPELINE__PATH": f"zarr.core.codec_pipeline.{pipeline}CodecPipeline"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("sharded", [False, True])
def test_damage_in_one_image_does_not_reach_those_that_are_read_at_the_same_time(tmp_path: Path, sharded: bool) -> None:
    pixels = numbers(100, 90)
    options: dict[str, Any] = {"shards": (26, 26)} if sharded else {}
    roots = [write_array(tmp_path / name, pixels, **options) for name in ("good", "bad")]
    for file in (path for path in (roots[1] / "c").rglob("*") if path.is_file()):
        file.write_bytes(file.read_bytes()[:-5])
    sources = [open_zarr(root) for root in roots]

    def read(number: int) -> bool:
        try:
            window = sources[number % 2].read(0, 0, slice(number, 90), slice(0, 90))
        except ImageError:
            return number % 2 == 1
        return number % 2 == 0 and bool((window == pixels[number:90]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(24)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :],
        lambda data: data + b"more",
    ],
    ids=["a byte is changed", "bytes are added"],
)
def test_a_checksum_tells_damage(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": True}}
    root = write_array(tmp_path / "a.zarr", numbers(100, 90), compressors=[zstd, {"name": "crc32c"}])
    file = root / "c" / "0" / "0"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ImageError, match=r"\A[^\n]+\Z"):
        corner(root)
