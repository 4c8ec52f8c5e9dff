"""What is said where OUT holds a run that was begun in another way."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import call
from small_runs import SmallRun, picture, small_run

from nucseg_batch.errors import MismatchError
from nucseg_batch.files.run.journal import Journal


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallRun:
    """A finished run over a stack of three slices, in a folder whose name must be quoted, without --link."""
    run = small_run(tmp_path / "my plate", monkeypatch)
    stack = np.stack([picture(count) for count in (3, 4, 2)])
    tifffile.imwrite(run.folder / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    run.segment()
    return run


def refused(run: SmallRun, **settings: object) -> str:
    """The message of a call with these settings more."""
    run.with_settings(**settings)
    with pytest.raises(MismatchError) as caught:
        run.segment()
    return str(caught.value)


def test_another_link_names_the_command_that_links_in_another_place(
    run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does what it says, with the settings of the run; the run stays as it is."""
    run.with_settings(link="z")
    run.segment()
    before = run.times()
    told = refused(run, link="t")
    assert "has --link z, and a run is linked in one way" in told
    assert "--overwrite" in told
    found = re.search(r"`nucseg-batch segment (.+? --link t)`", told)
    assert found is not None
    monkeypatch.chdir(tmp_path)
    assert "no image has an axis t" in call("plan", *shlex.split(found[1]), code=2).stderr
    call("plan", *shlex.split(found[1].replace("--link t", "--link z --z-step 2")))
    planned = Journal(Path("NEW.zarr")).load()
    assert (planned.settings.link, planned.settings.z_step) == ("z", 2)
    assert (planned.settings.diameter, planned.settings.region, planned.root) == (26, 64, str(run.folder))
    assert run.times() == before


def test_another_distance_of_slices_is_an_ordinary_difference(run: SmallRun) -> None:
    run.with_settings(link="z")
    run.segment()
    assert "--z-step: not given in the run, 2.0 now" in refused(run, z_step=2.0)


def test_with_other_differences_all_are_listed(run: SmallRun) -> None:
    """The command would not be what was asked for."""
    told = refused(run, link="z", diameter=20.0)
    assert "--diameter: 26.0 in the run, 20.0 now; --link: not given in the run, z now" in told
    assert "`" not in told


def test_a_call_without_the_link_of_the_run_is_told_to_give_it(run: SmallRun, tmp_path: Path) -> None:
    run.store, run.journal = tmp_path / "z.zarr", Journal(tmp_path / "z.zarr")
    run.with_settings(link="z")
    run.segment()
    assert "--link: z in the run, not given now). Use the settings of the run" in refused(run, link=None)


def test_no_command_is_named_where_none_can_be(run: SmallRun) -> None:
    """Somebody deleted the file with the settings."""
    run.with_settings(link="z")
    run.segment()
    run.journal.config.unlink()
    assert "Give another OUT, or start over with --overwrite." in refused(run, link="t")
