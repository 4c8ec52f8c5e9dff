"""Annotated images: found in any layout that people keep them in, and read with one set of rules.

`train` and `evaluate` use this room alone. `names` holds the naming rules, `layouts` and `zarr_layouts` find images with
their label images, `label_images` label images to compare, `index` what an index.csv says of them; `reading` reads files
and `encoding` says what their numbers mean, what is doubtful, and what is refused.
"""

from nucseg_batch.files.annotations.encoding import Annotation, decode
from nucseg_batch.files.annotations.index import Index, find_index, read_index
from nucseg_batch.files.annotations.label_images import LabelImage, LabelImages, find_label_images
from nucseg_batch.files.annotations.layouts import find_pairs
from nucseg_batch.files.annotations.names import read_name, stem
from nucseg_batch.files.annotations.pairs import MAX_IMAGE_PIXELS, DataSet, Pair
from nucseg_batch.files.annotations.reading import read_label_files, read_label_plane

__all__ = [
    "MAX_IMAGE_PIXELS",
    "Annotation",
    "DataSet",
    "Index",
    "LabelImage",
    "LabelImages",
    "Pair",
    "decode",
    "find_index",
    "find_label_images",
    "find_pairs",
    "read_index",
    "read_label_files",
    "read_label_plane",
    "read_name",
    "stem",
]
