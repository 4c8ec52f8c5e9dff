"""Which kinds of image files are read: the suffix says what is an image in a folder, the first bytes of which kind."""

from __future__ import annotations

from nucseg_batch.errors import ImageError

_PICTURES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".bmp",
    ".dib",
    ".gif",
    ".webp",
    ".jp2",
    ".j2k",
    ".j2c",
    ".jpf",
    ".jpx",
)
_TIFFS = (".tif", ".tiff", ".tf2", ".tf8", ".btf", ".svs", ".ndpi", ".scn", ".bif", ".qptiff", ".lsm", ".stk", ".flex")
IMAGE_SUFFIXES = frozenset((*_PICTURES, *_TIFFS))
"""Files with these suffixes are taken for images; which kind they are is told by their first bytes."""
_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"<?xm": "XML",
    b"<OME": "XML",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
}
_OTHERS = {
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"<!DO": "a web page",
    b"<htm": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}
"""What files that are called images also hold, by their first bytes."""


def kind_of(start: bytes) -> str:
    """The kind of a file that begins with these bytes, 32 or more if it has so many; `XML` may describe an OME-TIFF.

    Raises ImageError for a file that is no image that can be read.
    """
    start = start[:32].removeprefix(b"\xef\xbb\xbf")
    for signature, kind in _SIGNATURES.items():
        if start.startswith(signature):
            return kind
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP"
    found = next((what for signature, what in _OTHERS.items() if start.startswith(signature)), None)
    if found is not None:
        raise ImageError(f"its content is {found}, which is not read as an image; save it as TIFF or PNG.")
    raise ImageError(
        "it is not a readable image (PNG, JPEG, TIFF, BMP, GIF, WebP or JPEG 2000): the file "
        "is damaged or of another kind."
    )
