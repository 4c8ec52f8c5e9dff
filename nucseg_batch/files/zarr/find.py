"""Finds the images of a zarr store: one image, a collection of bioformats2raw, a plate, or any hierarchy of groups.

Where metadata list what there is (plates, wells, collections), they are followed, and what they list but is not there
is told. Elsewhere folders are looked through; an image is not searched for more, so its `labels` and tables are never
taken for images. Only metadata are read, a level of the hierarchy at a time. Folders that are links are passed over,
which also keeps loops out; what metadata list may be a link, but not out of the store.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nucseg_batch.errors import ImageError, InputMissingError
from nucseg_batch.files.source import Header
from nucseg_batch.files.zarr.guard import member_path
from nucseg_batch.files.zarr.header import first_level
from nucseg_batch.files.zarr.nodes import OWNER, Node, ZarrTree, below, open_tree
from nucseg_batch.files.zarr.source import described
from nucseg_batch.files.zarr.store import is_url

LAYOUT = "bioformats2raw.layout"
"""Attribute of the root of a collection."""
PROBED = 16
"""Numbered images of a collection that are looked for at once where nothing lists them."""
MAX_GROUPS = 1_000_000
"""Groups and arrays that a store may have."""
Named = Literal["listed", "member", "folder"]
"""Where the path of something comes from: metadata that list it, a group, or a folder that is no group."""
_SKIPPED = frozenset({"labels", "tables", "OME"})
"""Groups beside images that hold none."""


@dataclass(frozen=True)
class ZarrImage:
    """An image in a store, which `open_zarr(root, image.path)` opens."""

    path: str
    """Path of its group (or array) in the store; empty for the root."""
    array: str
    """Path of its array of full resolution in the store."""
    header: Header
    """What its metadata say."""
    ome: bool
    """Whether it is an OME-Zarr image group; False for a plain array."""
    blank: bool
    """Whether it has no chunk at all, so that all of it reads as its fill value: it is empty, or its copy incomplete;
    always False behind a URL, where this is not looked for."""


@dataclass(frozen=True)
class ZarrProblem:
    """Why something in a store cannot be used."""

    path: str
    """Where it lies in the store."""
    message: str
    """One line for the user."""


@dataclass(frozen=True)
class ZarrContent:
    """What a store holds."""

    images: tuple[ZarrImage, ...]
    """Images that can be read, sorted by path."""
    troubles: tuple[ZarrProblem, ...]
    """What looks like images and cannot be read, sorted by path."""
    missing: tuple[str, ...]
    """Paths that the metadata of a plate, well or collection list, but where there is nothing; sorted."""
    passed_over: dict[str, int]
    """How many other things there were, by reason."""
    ours: bool
    """Whether this program wrote it: it is an output, and holds no images."""
    unused_axes: int
    """Images of which other axes are known than were given, which therefore are not used."""
    metadata: dict[str, dict[str, Any]]
    """OME-Zarr attributes as written, by path, of every group that has any: plate, wells, images, collection."""
    zarr_format: int | None
    """Version of the format at the root; None where the root is a mere folder."""


def find_images(
    root: str | os.PathLike[str], *, axes: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> ZarrContent:
    """Finds all images of a store given by path or URL, and reads their headers; see `ZarrContent`.

    `axes` are those of arrays that do not say them, such as `tczyx`; `storage_options` go to fsspec. Raises
    InputMissingError where there is no such store or a package for the URL is missing; ImageError where the root's own
    metadata cannot be read.
    """
    tree = open_tree(root, storage_options)
    start = _root(tree)
    version = start.zarr_format if start is not None else None
    if tree.is_ours(start):
        return ZarrContent((), (), (), {}, True, 0, {}, version)
    search = _Search(tree)
    search.run(start)
    images = search.read_images(axes)
    if tree.files.links:
        search.passed_over["link to a folder"] += tree.files.links
    return ZarrContent(
        tuple(sorted(images, key=lambda image: image.path)),
        tuple(sorted(search.troubles, key=lambda trouble: trouble.path)),
        tuple(sorted(search.missing)),
        dict(search.passed_over),
        False,
        search.unused_axes,
        search.metadata,
        version,
    )


def _root(tree: ZarrTree) -> Node | None:
    """The node at the root, None for a mere folder; raises InputMissingError for a URL with nothing behind it."""
    try:
        start = tree.node("")
    except ImageError as error:
        if not is_url(tree.files.root):
            raise
        raise InputMissingError(f"{tree.files.root}: {error}") from error
    if start is None and is_url(tree.files.root) and not tree.children(""):
        raise InputMissingError(
            f"{tree.files.root}: there is no zarr group or array here, nor a list of what there is; "
            "give the URL of the store itself."
        )
    return start


@dataclass
class _Search:
    """The state of one search."""

    tree: ZarrTree
    found: list[Node] = field(default_factory=list)
    troubles: list[ZarrProblem] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    unused_axes: int = 0
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, start: Node | None) -> None:
        """Visits everything below the root, level by level."""
        nodes: dict[str, Node | ImageError | None] = {"": start}
        named: dict[str, Named] = {"": "folder"}
        seen = 0
        while nodes:
            seen += len(nodes)
            if seen > MAX_GROUPS:
                self.troubles.append(ZarrProblem("", f"it has more than {MAX_GROUPS} groups; the rest is left out."))
                return
            further: dict[str, Named] = {}
            for path, node in nodes.items():
                try:
                    further |= self._visit(path, node, named[path])
                except ImageError as error:
                    self.troubles.append(ZarrProblem(path, str(error)))
            listed = [path for path in further if further[path] == "listed"]
            others = [path for path in further if further[path] != "listed"]
            nodes, named = self.tree.nodes(listed, "group") | self.tree.nodes(others), further

    def _visit(self, path: str, node: Node | ImageError | None, named: Named) -> dict[str, Named]:
        """Where to look next."""
        if isinstance(node, ImageError):
            raise node
        if node is None:
            if named == "listed":
                self.missing.append(path)
            return self._folder(path) if named == "folder" else {}
        if node.kind == "array":
            self._array(node)
            return {}
        if OWNER in node.attributes:
            self.passed_over["output of nucseg-batch"] += 1
            return {}
        return self._group(node, named == "listed")

    def _group(self, node: Node, listed: bool) -> dict[str, Named]:
        ome = node.ome
        if ome:
            self.metadata[node.path] = ome
        if "plate" in ome:
            return self._listed(node, "plate", "wells")
        if "well" in ome:
            return self._listed(node, "well", "images")
        if "multiscales" in ome or "image-label" in ome:
            if "image-label" in ome and node.path and not listed:
                self.passed_over["label image"] += 1
            else:
                self.found.append(node)
            return {}
        if LAYOUT in ome:
            return self._collection(node)
        if "encoding-type" in node.attributes or "labels" in ome:
            self.passed_over["group of labels" if "labels" in ome else "table"] += 1
            return {}
        if listed:
            raise ImageError("it is listed as an image or a well, but its metadata do not say so.")
        return self._children(node.path, "member")

    def _listed(self, node: Node, kind: str, key: str) -> dict[str, Named]:
        """What a plate or well lists; single entries that cannot be followed are told."""
        holder = node.ome[kind]
        entries = holder.get(key) if isinstance(holder, dict) else None
        if not isinstance(entries, list):
            raise ImageError(f"its {kind} metadata have no list of {key}.")
        return self._members(node.path, [entry.get("path") if isinstance(entry, dict) else None for entry in entries])

    def _members(self, base: str, names: list[Any]) -> dict[str, Named]:
        paths: dict[str, Named] = {}
        for name in names:
            try:
                paths[member_path(base, name)] = "listed"
            except ImageError as error:
                self.troubles.append(ZarrProblem(base, str(error)))
        return paths

    def _collection(self, node: Node) -> dict[str, Named]:
        """The images of a collection as its group OME lists them; else those that are numbered, from 0 on."""
        inner = self.tree.node(below(node.path, "OME"))
        if inner is not None and isinstance(inner.ome.get("series"), list):
            self.metadata[inner.path] = inner.ome
            return self._members(node.path, inner.ome["series"])
        names = self.tree.children(node.path)
        if names is not None:
            return {below(node.path, name): "listed" for name in names if name.isdecimal()}
        paths: dict[str, Named] = {}
        while len(paths) % PROBED == 0:
            tried = self.tree.nodes(below(node.path, str(len(paths) + more)) for more in range(PROBED))
            there = [path for path, found in tried.items() if found is not None]
            if not there:
                break
            paths |= dict.fromkeys(there, "listed")
        return paths

    def _children(self, path: str, named: Named) -> dict[str, Named]:
        names = self.tree.children(path)
        if names is None:
            raise ImageError(
                "its contents cannot be listed (web servers do not support it); give the URL of an image or a plate in "
                "it, or consolidate its metadata with zarr.consolidate_metadata."
            )
        for name in _SKIPPED & set(names):
            self.passed_over[f"group {name}"] += 1
        return {below(path, name): named for name in names if name not in _SKIPPED}

    def _folder(self, path: str) -> dict[str, Named]:
        """Looks through a folder that is no group, where all above it are none, either; chunks are not looked for."""
        if path.rsplit("/", 1)[-1].isdecimal():
            return {}
        return self._children(path, "folder")

    def _array(self, node: Node) -> None:
        shape = node.metadata.get("shape")
        if node.path and isinstance(shape, list) and len(shape) < 2:
            self.passed_over["array of fewer than two axes"] += 1
        else:
            self.found.append(node)

    def read_images(self, axes: str | None) -> list[ZarrImage]:
        """Reads the first levels of all images that were found, together; troubles are added to the others."""
        levels: dict[str, str] = {}
        for node in self.found:
            try:
                levels[node.path] = node.path if node.kind == "array" else first_level(node)
            except ImageError as error:
                self.troubles.append(ZarrProblem(node.path, str(error)))
        arrays: dict[str, Node | ImageError | None] = {node.path: node for node in self.found if node.kind == "array"}
        arrays |= self.tree.nodes((level for level in levels.values() if level not in arrays), "array")
        images = []
        for node in self.found:
            if node.path in levels:
                try:
                    image = described(self.tree.files, node, arrays[levels[node.path]], axes=axes)
                    self.unused_axes += image.unused_axes
                    images.append(ZarrImage(node.path, image.array, image.header, node.kind == "group", image.blank))
                except ImageError as error:
                    self.troubles.append(ZarrProblem(node.path, str(error)))
        return images
