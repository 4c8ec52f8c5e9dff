"""Phases of the cell cycle are found where nuclei have them, and are not made up elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from report_pages import Page, made_run, report_of

from nucseg_batch.results.report.distribution import Distribution
from nucseg_batch.results.report.dna_content import aligned, cell_cycle, is_stained


def contents(
    g1: float, s: float, g2: float, number: int = 20_000, variation: float = 0.1, seed: int = 7
) -> NDArray[np.float64]:
    """Measured DNA contents of nuclei whose phases have these fractions; the G1 peak is at 3000."""
    random = np.random.default_rng(seed)
    phase = random.choice(3, number, p=[g1, s, g2])
    dna = np.select([phase == 0, phase == 1], [1.0, random.uniform(1, 2, number)], 2.0)
    spread = np.sqrt(np.log(1 + variation**2))
    return 3000 * dna * random.lognormal(0, spread, number)


def distribution(*values: NDArray[np.float64]) -> Distribution:
    found = Distribution()
    for some in values:
        found.add(some)
    return found


@pytest.mark.parametrize("variation", [0.04, 0.08, 0.12])
@pytest.mark.parametrize("fractions", [(0.6, 0.15, 0.25), (0.45, 0.3, 0.25), (0.8, 0.1, 0.1), (0.3, 0.15, 0.55)])
def test_known_fractions_are_found(fractions: tuple[float, float, float], variation: float) -> None:
    """Asynchronous, fast growing, resting and arrested cells, stained evenly or less so."""
    found = cell_cycle(distribution(contents(*fractions, variation=variation)))
    assert found is not None
    np.testing.assert_allclose(found.phases, fractions, atol=0.03)
    assert found.g1 == pytest.approx(3000, rel=0.02)
    assert found.variation == pytest.approx(variation, rel=0.1)
    assert found.rest < 0.03


def test_debris_and_overlaps_are_the_rest() -> None:
    """A tenth of the nuclei are anything from an eighth to eight times the content."""
    random = np.random.default_rng(1)
    odd = 3000 * 2 ** random.uniform(-3, 3, 2000)
    found = cell_cycle(distribution(contents(0.6, 0.15, 0.25, 18_000), odd))
    assert found is not None
    np.testing.assert_allclose(found.phases, (0.6, 0.15, 0.25), atol=0.04)
    assert 0.05 < found.rest < 0.12


def test_five_hundred_nuclei_are_enough_for_a_rough_estimate() -> None:
    values = distribution(contents(0.6, 0.15, 0.25, 500, variation=0.08))
    assert is_stained(values)
    found = cell_cycle(values)
    assert found is not None
    np.testing.assert_allclose(found.phases, (0.6, 0.15, 0.25), atol=0.08)


def test_images_of_other_exposures_are_aligned() -> None:
    """Each has its own peak of G1, which a pooled histogram blurs."""
    images = [(1 + seed % 9 / 4) * contents(0.6, 0.15, 0.25, 120, 0.08, seed) for seed in range(100)]
    assert cell_cycle(distribution(*images)) is None
    found = cell_cycle(distribution(*map(aligned, images)))
    assert found is not None
    np.testing.assert_allclose(found.phases, (0.6, 0.15, 0.25), atol=0.05)
    assert found.g1 == pytest.approx(1, rel=0.03)
    assert not aligned(images[0][:39]).size


@pytest.mark.parametrize("width", [0.05, 0.15, 0.4, 0.8])
@pytest.mark.parametrize("number", [500, 5000, 100_000])
def test_one_peak_has_no_phases(width: float, number: int) -> None:
    """As of a channel that is no DNA stain, whatever its spread."""
    for seed in range(3):
        values = 3000 * np.random.default_rng(seed).lognormal(0, width, number)
        assert cell_cycle(distribution(values)) is None
        assert cell_cycle(distribution(*map(aligned, np.split(values, number // 100)))) is None


def test_peaks_that_are_not_at_one_and_two_are_no_phases() -> None:
    """As where two plates were exposed differently."""
    random = np.random.default_rng(3)
    for ratio in (1.4, 3.0):
        mixed = np.concatenate([random.normal(3000, 200, 5000), random.normal(3000 * ratio, 200 * ratio, 5000)])
        assert cell_cycle(distribution(mixed)) is None


def test_dark_nuclei_and_few_nuclei_are_not_stained() -> None:
    """On a bright ground the sum above background is negative."""
    assert not is_stained(distribution(-contents(0.6, 0.15, 0.25)))
    assert not is_stained(distribution(contents(0.6, 0.15, 0.25, 499)))
    assert not is_stained(distribution(np.zeros(1000)))


def fields_of(values: NDArray[np.float64]) -> dict[str, NDArray[np.generic]]:
    """Images with 20 square nuclei each, of these contents; one more that touches the border is ten times brighter."""
    fields = dict[str, NDArray[np.generic]]()
    for number, some in enumerate(values.reshape(-1, 20)):
        pixels = np.full((50, 60), 10, np.uint16)
        pixels[48:, :4] = 30_000
        for place, content in enumerate(some):
            y, x = 4 + 11 * (place // 5), 4 + 11 * (place % 5)
            pixels[y : y + 5, x : x + 5] = 10 + content / 25
        fields[f"{number:03d}.tif"] = pixels
    return fields


def test_the_page_shows_the_phases_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From areas, intensities and backgrounds of the tables, without nuclei that are cut."""
    values = 2 * contents(0.6, 0.15, 0.25, 2000, 0.08)
    page = Page(report_of(made_run(tmp_path, monkeypatch, fields_of(values)).store))
    found = re.search(r"phases: G1 (\d+) %, S (\d+) %, G2/M (\d+) %; ([\d.]+) % of the nuclei fit", page.text)
    assert found is not None
    np.testing.assert_allclose([float(part) for part in found.groups()], [60, 15, 25, 1], atol=3)
    assert {"G1", "G2"} <= set(page.words)


def test_the_page_says_why_there_are_no_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One peak is none of a cycle, and a few nuclei have no histogram."""
    one = np.random.default_rng(1).normal(6000, 400, 600)
    many = made_run(tmp_path / "a", monkeypatch, fields_of(one)).store
    assert "Phases of the cell cycle are not estimated" in Page(report_of(many)).text
    few = report_of(made_run(tmp_path / "b", monkeypatch, fields_of(one[:100])).store)
    assert "DNA content" not in few
