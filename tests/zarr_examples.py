"""Small zarr stores for tests: images, plates and collections of OME-Zarr 0.4 and 0.5, and web servers for them."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

Version = Literal["0.4", "0.5"]
TYPES = {"t": "time", "c": "channel"}


def write_group(path: Path, ome: dict[str, Any] | None = None, *, version: Version = "0.5") -> Path:
    """A group with OME-Zarr attributes, where its version keeps them."""
    path.mkdir(parents=True, exist_ok=True)
    if version == "0.5":
        attributes = {} if ome is None else {"ome": {"version": "0.5", **ome}}
        content = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        (path / "zarr.json").write_text(json.dumps(content))
    else:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        if ome is not None:
            (path / ".zattrs").write_text(json.dumps(ome))
    return path


def write_array(path: Path, pixels: NDArray[Any], *, version: Version = "0.5", **options: Any) -> Path:
    """An array; `options` go to zarr."""
    options.setdefault("chunks", tuple(min(length, 13) for length in pixels.shape))
    if version == "0.4":
        options.setdefault("chunk_key_encoding", {"name": "v2", "separator": "/"})
    path.parent.mkdir(parents=True, exist_ok=True)
    array = zarr.create_array(
        path, shape=pixels.shape, dtype=pixels.dtype, zarr_format=3 if version == "0.5" else 2, **options
    )
    array[...] = pixels
    return path


def multiscales(axes: str, *, size: float | None = None, unit: str = "micrometer", levels: int = 1) -> dict[str, Any]:
    """Attributes of an image with these axes; `size` is the width of a pixel."""
    entries: list[dict[str, Any]] = []
    for name in axes:
        entries.append({"name": name, "type": TYPES.get(name, "space")})
        if size is not None and name in "yx":
            entries[-1]["unit"] = unit
    datasets = []
    for level in range(levels):
        scale = [(size or 1.0) * 2**level if name in "yx" else 1.0 for name in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    return {"multiscales": [{"version": "0.4", "axes": entries, "datasets": datasets}]}


def write_image(
    path: Path,
    pixels: NDArray[Any],
    axes: str,
    *,
    version: Version = "0.5",
    channels: Sequence[str] | None = None,
    size: float | None = None,
    levels: int = 1,
    **options: Any,
) -> Path:
    """An image group; further levels leave out every other row and column."""
    ome = multiscales(axes, size=size, levels=levels)
    if channels is not None:
        ome["omero"] = {"channels": [{"label": name} for name in channels]}
    write_group(path, ome, version=version)
    for level in range(levels):
        steps = tuple(slice(None, None, 2**level if name in "yx" else 1) for name in axes)
        write_array(path / str(level), pixels[steps], version=version, **options)
    return path


def write_plate(
    path: Path, wells: Sequence[str], fields: int, pixels: NDArray[Any], axes: str, *, version: Version = "0.5"
) -> Path:
    """A plate whose wells have the same fields of view."""
    rows, columns = (sorted({well.split("/")[place] for well in wells}) for place in (0, 1))
    listed = [
        {"path": well, "rowIndex": rows.index(well.split("/")[0]), "columnIndex": columns.index(well.split("/")[1])}
        for well in wells
    ]
    names = {"rows": [{"name": name} for name in rows], "columns": [{"name": name} for name in columns]}
    write_group(path, {"plate": {"version": "0.4", "name": "test", **names, "wells": listed}}, version=version)
    for row in rows:
        write_group(path / row, version=version)
    for well in wells:
        images = [{"path": str(number)} for number in range(fields)]
        write_group(path / well, {"well": {"images": images, "version": "0.4"}}, version=version)
        for number in range(fields):
            write_image(path / well / str(number), pixels, axes, version=version)
    return path


def numbers(*shape: int, dtype: str = "uint16") -> NDArray[Any]:
    """Pixels that all differ, as far as their type allows."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


class WebServer(http.server.ThreadingHTTPServer):
    """A web server for a folder that remembers what it was asked for. It knows no ranges of bytes."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Remembers the path instead of printing it."""
        assert isinstance(self.server, WebServer)
        self.server.asked.append(self.path)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[WebServer]:
    """A web server for a folder, for as long as the context lasts."""
    server = WebServer(folder)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
