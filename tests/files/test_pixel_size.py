from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nucseg_batch.files.images import open_file, read_header

METASERIES = (
    '<MetaData><PlaneInfo><prop id="spatial-calibration-x" type="float" value="1.3672"/>'
    '<prop id="spatial-calibration-units" type="string" value="um"/></PlaneInfo></MetaData>'
)
PIXELS = np.zeros((31, 37), np.uint16)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm"}}, 0.325),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm"}}, 0.325),
        ({"ome": True, "metadata": {"axes": "YX"}}, None),
        ({"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "um"}}, 0.25),
        ({"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "micron"}}, 0.25),
        ({"imagej": True, "resolution": (4.0, 4.0)}, None),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"software": "MetaSeries", "description": METASERIES, "metadata": None}, 1.3672),
        (
            {"description": "Aperio Image|AppMag = 20|MPP = 0.4990|Left = 25.6", "metadata": None, "tile": (16, 16)},
            0.499,
        ),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 352.8, "PhysicalSizeXUnit": "µm"}}, None),
    ],
    ids=[
        "OME",
        "OME in nm",
        "OME without",
        "ImageJ",
        "ImageJ micron",
        "ImageJ without",
        "dpi",
        "MetaXpress",
        "Aperio",
        "a screen's",
    ],
)
def test_the_size_of_a_pixel_is_what_a_microscope_wrote(
    tmp_path: Path, options: dict[str, Any], expected: float | None
) -> None:
    """72 dpi is a printer's; taken for a microscope's it would make every nucleus a speck."""
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    found = read_header(tmp_path / "a.tif", max_pixels=10**6).pixel_size
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeZ": 2.5, "PhysicalSizeZUnit": "µm"}}, 2.5),
        ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeZ": 750.0, "PhysicalSizeZUnit": "nm"}}, 0.75),
        ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "µm"}}, None),
        ({"imagej": True, "metadata": {"axes": "ZYX", "spacing": 1.25, "unit": "micron"}}, 1.25),
        ({"imagej": True, "metadata": {"axes": "ZYX", "spacing": 1.25}}, None),
        ({"imagej": True, "metadata": {"axes": "ZYX", "spacing": 0.0, "unit": "um"}}, None),
    ],
    ids=["OME", "OME in nm", "OME without", "ImageJ", "ImageJ without a unit", "ImageJ with nonsense"],
)
def test_the_distance_of_slices_is_read_where_software_wrote_it(
    tmp_path: Path, options: dict[str, Any], expected: float | None
) -> None:
    """As the size of a pixel is: volumes are measured with both."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((7, 31, 37), np.uint16), **options)
    assert open_file(path, max_pixels=10**6).header.z_step == (None if expected is None else pytest.approx(expected))
