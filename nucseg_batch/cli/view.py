"""The command `view`."""

from __future__ import annotations

from typing import Annotated

import typer

from nucseg_batch.cli.options import Out
from nucseg_batch.cli.overlay import ImagesPlace
from nucseg_batch.errors import UsageError

Image = Annotated[
    str | None,
    typer.Argument(
        metavar="IMAGE", help="Path or name of an image in the run; default: images of the most frequent shape."
    ),
]


def view(store: Out, image: Image = None, images: ImagesPlace = None) -> None:
    """Open images and nuclei in napari.

    Needs napari, which the extra `napari` installs. Hovering over a nucleus shows its number, area and other
    measurements. Time points, depths and images are sliders. Stacks of a run with --link z show volumes, movies of a
    run with --link t tracks.

    Examples:
    nucseg-batch view out.zarr
    nucseg-batch view out.zarr plate1/A01.tif
    """
    import importlib.util
    import os

    from nucseg_batch.cli.console import say
    from nucseg_batch.results.run import FinishedRun

    with FinishedRun(store, images) as run:
        if importlib.util.find_spec("napari") is None:
            raise UsageError(
                "view needs napari, which is not installed: pip install 'nucseg-batch[napari]'. Without it, "
                f"`nucseg-batch overlay {store} DIR` writes pictures."
            )
        if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")):
            raise UsageError(
                f"view needs a display, but there is none; `nucseg-batch overlay {store} DIR` writes pictures."
            )
        from nucseg_batch.results.layers import add_layers, view_of

        shown = view_of(run, image)
        for note in shown.notes:
            say(note)
        import napari

        viewer = napari.Viewer(title=f"nucseg-batch {store.name}")
        add_layers(viewer, shown)
        napari.run()
