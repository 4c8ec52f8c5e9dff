from __future__ import annotations

import pytest

from nucseg_batch.errors import SettingError, UsageError
from nucseg_batch.settings import SegmentSettings
from nucseg_batch.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 0.0),
        ("threshold", 1.0),
        ("min_area", -1),
        ("batch_size", 0),
        ("workers", 0),
        ("device", "tpu"),
        ("diameter", 0.0),
        ("pixel_size", -1.0),
        ("region", 999),
        ("region", 0),
        ("axes", "tczx"),
        ("axes", "yyx"),
        ("channel", ""),
        ("ring", "3"),
        ("ring", "1,0"),
        ("ring", "1,2,3"),
        ("ring", "-1,2"),
        ("ring", "1,2mm"),
        ("ring", "300,201"),
        ("expand", "0"),
        ("expand", "1,2"),
        ("expand", "um"),
        ("expand", "1e3"),
        ("neighbour_radius", -1.0),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_its_name_and_itself(name: str, value: object) -> None:
    """Its name in Python, as it was written; the command line names the option."""
    with pytest.raises(UsageError, match=f"^{name} must be ") as caught:
        SegmentSettings(**{name: value})  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "values", "micrometres", "pixels"),
    [
        ("1,5", (1, 5), False, (1, 5)),
        (" .5, 2.25 ", (0.5, 2.25), False, (0.5, 2.25)),
        ("0.5,2um", (0.5, 2), True, (2, 8)),
        ("0,3 µm", (0, 3), True, (0, 12)),
    ],
)
def test_distances_are_in_pixels_or_in_micrometres(
    text: str, values: tuple[float, ...], micrometres: bool, pixels: tuple[float, ...]
) -> None:
    distances = SegmentSettings(ring=text).compartments["rings"]
    assert (distances.values, distances.micrometres) == (values, micrometres)
    assert distances.pixels(0.25) == pixels


@pytest.mark.parametrize(("measure", "end"), [("shap", "mean 'shape'?"), ("solidty", "'solidity'?"), ("", "''.")])
def test_columns_that_do_not_exist_are_refused_with_a_near_name(measure: str, end: str) -> None:
    one, other = (SegmentSettings(measure=given) for given in ("moments, solidity", "solidity,moments"))
    assert one.extra_columns == other.extra_columns
    with pytest.raises(UsageError, match=r"^measure must be some of shape, moments, .*, all, or names") as caught:
        SegmentSettings(measure=f"moments,{measure}")
    assert str(caught.value).endswith(end)


def test_options_that_only_change_speed_do_not_bind_a_resumed_run() -> None:
    """A run begun with one batch size may go on with another; with another threshold it may not."""
    slow, fast = SegmentSettings(batch_size=1, workers=1), SegmentSettings(batch_size=16, workers=4)
    assert slow.result_options() == fast.result_options()
    assert SegmentSettings(threshold=0.3).result_options() != SegmentSettings(threshold=0.4).result_options()


def test_crops_must_fit_the_networks_stride() -> None:
    """A crop that pooling cannot halve evenly would shift the target against the image."""
    TrainSettings(crop=96)
    with pytest.raises(UsageError, match="multiple of 32"):
        TrainSettings(crop=100)


@pytest.mark.parametrize(
    ("name", "value"), [("architecture", "resnet"), ("task", "panoptic"), ("diameter", 1.0), ("validation", 1.5)]
)
def test_a_training_that_cannot_be_meant_is_refused(name: str, value: object) -> None:
    """Before an hour is spent on it."""
    with pytest.raises(UsageError, match=name):
        TrainSettings(**{name: value})  # type: ignore[arg-type]


def test_settings_that_mean_the_same_are_the_same_for_a_resumed_run() -> None:
    """However they are written."""
    first = SegmentSettings(ring="1,5", expand=".5 µm", measure="solidity, texture")
    second = SegmentSettings(ring="1.0, 5.00", expand="0.50um", measure="texture,solidity,solidity")
    assert first.result_options() == second.result_options()
    assert first.result_options()["ring"] == "1,5"
    assert first.result_options()["expand"] == "0.5um"
    assert first.result_options()["measure"] == "solidity,texture"
    assert SegmentSettings(ring="1,5um").result_options() != SegmentSettings(ring="1,5").result_options()


def test_a_radius_counts_only_where_neighbours_are_counted() -> None:
    """A run without the column can be resumed with any radius; one with it cannot."""
    for measure, same in ((None, True), ("shape", True), ("neighbour_distance", True), ("neighbours", False)):
        near, far = (SegmentSettings(measure=measure, neighbour_radius=radius) for radius in (40.0, 90.0))
        assert (near.result_options() == far.result_options()) is same, measure
    default = SegmentSettings().result_options()
    assert SegmentSettings(neighbour_radius=40.0).result_options() == default
    assert SegmentSettings(controls="A01").result_options() == default


def test_the_distance_of_slices_counts_only_where_nuclei_are_joined_over_them() -> None:
    """Nothing else is measured with it; a run without volumes can be resumed with any."""
    assert SegmentSettings(z_step=2.0).result_options() == SegmentSettings().result_options()
    assert SegmentSettings(link="z", z_step=2.0).result_options() != SegmentSettings(link="z").result_options()


def test_only_pixels_are_limited_before_the_size_of_pixels_is_known() -> None:
    """600 micrometres may be 300 pixels."""
    assert SegmentSettings(expand="600um").compartments
    with pytest.raises(SettingError, match="at most 500 pixels from the nucleus"):
        SegmentSettings(expand="600")
