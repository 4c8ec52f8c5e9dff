"""Annotated images, for `train` and `evaluate` alike: layouts on disk, and how label images are read.

- `names`: naming rules of files and folders;
- `layouts`, `zarr_layouts`: images paired with their label images;
- `label_images`: label images to compare, with or without images;
- `label_stacks`: label images of z-stacks, to compare slice by slice;
- `index`: splits and groups from an index.csv;
- `reading`, `encoding`: files and planes to labels, with doubtful assumptions and refusals.
"""

from nucseg_batch.files.annotations.encoding import Annotation, decode
from nucseg_batch.files.annotations.index import AnnotationIndex, find_index, read_index
from nucseg_batch.files.annotations.label_images import LabelImage, LabelImages, find_label_images
from nucseg_batch.files.annotations.label_stacks import LabelStack, empty_stack
from nucseg_batch.files.annotations.layouts import find_all_pairs, find_pairs
from nucseg_batch.files.annotations.names import read_name, stem
from nucseg_batch.files.annotations.pairs import MAX_IMAGE_PIXELS, DataSet, Pair
from nucseg_batch.files.annotations.reading import read_label_files, read_label_plane

__all__ = [
    "MAX_IMAGE_PIXELS",
    "Annotation",
    "AnnotationIndex",
    "DataSet",
    "LabelImage",
    "LabelImages",
    "LabelStack",
    "Pair",
    "decode",
    "empty_stack",
    "find_all_pairs",
    "find_index",
    "find_label_images",
    "find_pairs",
    "read_index",
    "read_label_files",
    "read_label_plane",
    "read_name",
    "stem",
]
