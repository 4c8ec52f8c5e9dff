"""The tag Orientation of a TIFF: how the picture is to be shown, which is not how its pixels are read.

Pixels keep the order in which they are stored, so that masks fit what other programs for microscopy read.
"""

from __future__ import annotations

from typing import Any

from nucseg_batch.plan import Assumption

_TAG = 274
_SHOWN = {
    2: "mirrored left to right",
    3: "rotated by 180 degrees",
    4: "mirrored top to bottom",
    5: "with rows and columns exchanged",
    6: "rotated by 90 degrees clockwise",
    7: "rotated by 90 degrees and mirrored",
    8: "rotated by 90 degrees counter-clockwise",
}
"""How a picture is to be shown, by the value of the tag; 1 is as it is stored."""


def turned(key: Any) -> tuple[Assumption, ...]:
    """What is assumed of a page, a tifffile.TiffPage, if its tag says to show it in another way than it is stored."""
    tag = key.tags.get(_TAG)
    shown = (
        _SHOWN.get(tag.value) if tag is not None and tag.count == 1 else None
    )  # several values would need another read
    if shown is None:
        return ()
    what = "pixels are read in the order in which they are stored, as by tifffile, Fiji and scikit-image"
    evidence = f"its tag Orientation asks for it to be shown {shown}"
    return (Assumption("axes", what, evidence, "rotate or mirror the pixels and save them without this tag"),)
