"""The groups and arrays of a zarr store, of format 2 or 3, read from their metadata files and not through zarr.

Opening thousands of groups one by one takes a library seconds on a disk and minutes behind a URL; here the metadata of
many is fetched together. Behind a URL the consolidated metadata are used where the store has them; of a folder the
files themselves are read, which cannot be out of date.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nucseg_batch.errors import ImageError
from nucseg_batch.files.zarr.ome import ome_of
from nucseg_batch.files.zarr.store import MetadataFile, NotAllowedError, StoreFiles, is_url, open_files
from nucseg_batch.files.zarr.zipped import ZipFiles, is_archive

OWNER = "nucseg-batch"
"""Attribute of the root group of the stores that this program writes."""
Documents = dict[str, MetadataFile | ImageError]
Kind = Literal["group", "array"]
_NAMES_TWO = (".zarray", ".zgroup", ".zattrs")


@dataclass(frozen=True)
class Node:
    """A group or array, as its metadata say."""

    path: str
    """Where it lies in the store, with `/`; empty for the root."""
    kind: Kind
    """Which of the two."""
    zarr_format: Literal[2, 3]
    """Version of the format."""
    attributes: dict[str, Any]
    """All attributes, as written."""
    metadata: dict[str, Any]
    """The metadata of an array, as written; empty for a group."""
    size: int
    """Bytes of its metadata."""
    mtime_ns: int
    """When they were last changed, in nanoseconds; 0 behind a URL."""

    @property
    def ome(self) -> dict[str, Any]:
        """The OME-Zarr attributes, as written, wherever the version keeps them; empty where there are none."""
        return ome_of(self.attributes)


class ZarrTree:
    """Reads nodes of one store."""

    def __init__(self, files: StoreFiles) -> None:
        self.files = files
        """Where they are read from."""
        self._known: Documents = {} if files.local or isinstance(files, ZipFiles) else _consolidated(files)
        self._first: Literal[2, 3] = 2 if any(name.endswith(".zgroup") for name in self._known) else 3

    def node(self, path: str, kind: Kind | None = None) -> Node | None:
        """One node, None where there is none; raises ImageError for metadata that cannot be read. See `nodes`."""
        found = self.nodes([path], kind)[path]
        if isinstance(found, ImageError):
            raise found
        return found

    def nodes(self, paths: Iterable[str], kind: Kind | None = None) -> dict[str, Node | ImageError | None]:
        """Many nodes at once: None where there is none, an error where the metadata cannot be read.

        Where `kind` is known, nodes of the other kind count as none, attributes of arrays of format 2 are not read, and
        fewer requests are made.
        """
        wanted = list(dict.fromkeys(paths))
        found: dict[str, Node | ImageError | None] = {}
        for version in (self._first, 5 - self._first):
            left = [path for path in wanted if not isinstance(found.get(path), Node)]
            for path, node in (self._three(left) if version == 3 else self._two(left, kind)).items():
                found[path] = node or found.get(path)
        self._first = next((node.zarr_format for node in found.values() if isinstance(node, Node)), self._first)
        return found

    def _three(self, paths: list[str]) -> dict[str, Node | ImageError | None]:
        documents = self._fetch([below(path, "zarr.json") for path in paths])
        return {path: _node_three(path, documents.get(below(path, "zarr.json"))) for path in paths}

    def _two(self, paths: list[str], kind: Kind | None) -> dict[str, Node | ImageError | None]:
        names = {"group": (".zgroup", ".zattrs"), "array": (".zarray",), None: _NAMES_TWO}[kind]
        documents = self._fetch([below(path, name) for path in paths for name in names])
        return {path: _node_two(path, *(documents.get(below(path, name)) for name in _NAMES_TWO)) for path in paths}

    def _fetch(self, names: list[str]) -> Documents:
        known = {name: self._known[name] for name in names if name in self._known}
        return known | self.files.fetch(name for name in names if name not in known)

    def children(self, path: str) -> list[str] | None:
        """Names of what lies in a group, hidden folders left out; None where that cannot be found out."""
        if self._known:
            start = f"{path}/" if path else ""
            inner = {name[len(start) :].split("/")[0] for name in self._known if name.startswith(start)}
            return sorted(name for name in inner if name != "zarr.json" and not name.startswith("."))
        folders = self.files.folders(path)
        return None if folders is None else [name for name in folders if not name.startswith(".")]

    def is_ours(self, root: Node | None) -> bool:
        """Whether this program wrote the store whose root is given, or the store that the folder is a part of."""
        if root is not None and OWNER in root.attributes:
            return True
        return self.files.local is not None and _inside_ours(self.files.local)


def open_tree(root: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> ZarrTree:
    """Opens a store by path or URL; raises InputMissingError where there is none."""
    if not is_url(root) and is_archive(root, named=True):
        return ZarrTree(ZipFiles(Path(root)))
    return ZarrTree(open_files(root, storage_options))


def below(path: str, name: str) -> str:
    """Path of what lies in a group."""
    return f"{path}/{name}" if path else name


def _inside_ours(folder: Path) -> bool:
    for parent in Path(os.path.abspath(folder)).parents:
        try:
            attributes = json.loads((parent / "zarr.json").read_bytes())["attributes"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False
        if OWNER in attributes:
            return True
    return False


def _consolidated(files: StoreFiles) -> Documents:
    """The metadata of all nodes as the root repeats them, by name of the file that each stands for; often empty."""
    found = files.fetch(["zarr.json", ".zmetadata"])
    try:
        if "zarr.json" in found:
            inline = (_parsed(found["zarr.json"]).get("consolidated_metadata") or {}).get("metadata", {})
            nodes = {below(path, "zarr.json"): content for path, content in inline.items()}
        else:
            nodes = _parsed(found[".zmetadata"])["metadata"] if ".zmetadata" in found else {}
        known: Documents = {name: MetadataFile(json.dumps(content).encode(), 0) for name, content in nodes.items()}
    except (ImageError, AttributeError, TypeError, KeyError):
        return {}
    return known | ({"zarr.json": found["zarr.json"]} if known and "zarr.json" in found else {})


def _parsed(document: MetadataFile | ImageError) -> dict[str, Any]:
    if isinstance(document, ImageError):
        raise document
    try:
        content = json.loads(document.data)
    except (ValueError, RecursionError) as error:
        raise ImageError("its metadata are no JSON; the file is cut or damaged.") from error
    if not isinstance(content, dict):
        raise ImageError("its metadata are no JSON object.")
    return content


def _node_three(path: str, document: MetadataFile | ImageError | None) -> Node | ImageError | None:
    if document is None:
        return None
    try:
        content = _parsed(document)
    except ImageError as error:
        return error
    kind, attributes = content.get("node_type"), content.get("attributes") or {}
    if content.get("zarr_format") != 3 or kind not in ("group", "array") or not isinstance(attributes, dict):
        return ImageError("its zarr.json is neither that of a group nor that of an array of format 3.")
    size, mtime = (len(document.data), document.mtime_ns) if isinstance(document, MetadataFile) else (0, 0)
    return Node(path, kind, 3, attributes, content if kind == "array" else {}, size, mtime)


def _node_two(
    path: str,
    array: MetadataFile | ImageError | None,
    group: MetadataFile | ImageError | None,
    attributes: MetadataFile | ImageError | None,
) -> Node | ImageError | None:
    own = next((found for found in (array, group) if isinstance(found, MetadataFile)), array or group)
    if own is None:
        return None
    if isinstance(attributes, NotAllowedError):
        attributes = None
    try:
        metadata = _parsed(own)
        parsed = _parsed(attributes) if attributes is not None else {}
    except ImageError as error:
        return error
    if metadata.get("zarr_format") != 2:
        return ImageError("its metadata are not those of zarr format 2.")
    documents = [document for document in (own, attributes) if isinstance(document, MetadataFile)]
    size, mtime = sum(len(document.data) for document in documents), max(document.mtime_ns for document in documents)
    kind: Kind = "array" if own is array else "group"
    return Node(path, kind, 2, parsed, metadata if kind == "array" else {}, size, mtime)
