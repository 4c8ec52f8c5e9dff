"""Which of the images that were found are planned: those whose headers can be used, and that the flat field fits."""

from __future__ import annotations

from nucseg_batch.files.find.header_scan import HeaderScan
from nucseg_batch.files.flat_field_file import field_shape, read_flat_field
from nucseg_batch.plan import Failure, ImageInfo, fitting_images
from nucseg_batch.settings import SegmentSettings


def plannable(scanned: HeaderScan, settings: SegmentSettings) -> tuple[list[ImageInfo], list[Failure]]:
    """Images that can be segmented with these settings, and why the others cannot.

    Raises what `read_flat_field` raises for a flat field that cannot be used.
    """
    if settings.flatfield is None:
        return scanned.images, scanned.failures
    path = settings.flatfield_file
    given = field_shape(read_flat_field(path, settings.max_pixels)) if path else None
    images, failures = fitting_images(scanned.images, given)
    return images, [*scanned.failures, *failures]
