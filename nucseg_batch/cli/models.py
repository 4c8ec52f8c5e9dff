"""The command `models`, and model files as users name them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nucseg_batch.errors import InputMissingError, ModelError, UsageError
from nucseg_batch.files.names import name_beside
from nucseg_batch.settings import OUTPUT

if TYPE_CHECKING:
    from nucseg_batch.model_record import ModelRecord


def model_file(context: typer.Context, value: Path | None) -> Path | None:
    """The file of `--model`, which must be there; None for the model that ships.

    Raises InputMissingError, with the nearest name beside it.
    """
    if value is None or context.resilient_parsing:
        return None
    from nucseg_batch.executors.kept_models import find_model

    return find_model(value, "--model")


class ModelAction(StrEnum):
    """Values of ACTION."""

    list = "list"
    show = "show"
    add = "add"
    export = "export"


class ModelFormatChoice(StrEnum):
    """Values of --format."""

    bioimageio = "bioimageio"
    onnx = "onnx"
    savedmodel = "savedmodel"


OF_ACTIONS = {
    "name": (ModelAction.add, ModelAction.export),
    "overwrite": (ModelAction.add, ModelAction.export),
    "place": (ModelAction.export,),
    "kind": (ModelAction.export,),
    "author": (ModelAction.export,),
    "license": (ModelAction.export,),
    "grey": (ModelAction.export,),
}
"""To which actions parameters belong that not all have."""
SPELLED = {"place": "TO", "kind": "--format"}
"""Parameters whose names on the command line are others."""


def models(
    context: typer.Context,
    action: Annotated[ModelAction, typer.Argument(metavar="ACTION", help="What to do: list, show, add or export.")],
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Name or file of a model for show and export, file for add."),
    ] = None,
    place: Annotated[
        Path | None,
        typer.Argument(metavar="TO", help="With export: file or folder to write, such as mine.zip or mine.onnx."),
    ] = None,
    kind: Annotated[
        ModelFormatChoice | None,
        typer.Option(
            "--format",
            metavar="KIND",
            help="With export: bioimageio, a package with ONNX weights, test images and a README; onnx, the network as "
            "one file; savedmodel, a folder for TensorFlow.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With add: name to keep it under; with export: title of the package; default: that of the file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    author: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With export: author of the model, for a bioimageio package. May be given several times.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            metavar="SPDX",
            help="With export: licence of the weights for a bioimageio package, such as CC-BY-4.0.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    grey: Annotated[
        bool,
        typer.Option(
            "--grey",
            help="With export: describe the input of a bioimageio package as one channel, not as red, green and blue.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="With add and export: replace what has the same name.", rich_help_panel=OUTPUT
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object, for scripts; other text goes to stderr.", rich_help_panel=OUTPUT
        ),
    ] = False,
) -> None:
    """List, show, keep and export models.

    `add` checks a model file and copies it to ~/.local/share/nucseg-batch/models. `--model NAME` then finds it from
    any folder. If XDG_DATA_HOME is set, it takes the place of ~/.local/share. Files take precedence over names.
    `export` writes a model for other programs; it needs the extra `models`.

    Examples:
    nucseg-batch models list
    nucseg-batch models show default
    nucseg-batch models add mine.keras --name confocal
    nucseg-batch segment images/ out.zarr --model default
    nucseg-batch models export default nuclei.zip --format bioimageio
    """
    from nucseg_batch.cli.console import answer

    _check_parameters(context, action)
    if action is ModelAction.list:
        if model is not None:
            raise UsageError(f"{model!r} is too much: `models list` lists all; `models show {model}` shows one.")
        record = _list()
    elif model is None:
        raise UsageError(
            f"MODEL is missing: give a name or a file, as in `nucseg-batch models {action.value} mine.keras`."
        )
    elif action is ModelAction.show:
        record = _show(model)
    elif action is ModelAction.add:
        record = _add(Path(model), name, overwrite=overwrite)
    else:
        if place is None or kind is None:
            raise UsageError(
                f"{'TO' if place is None else '--format'} is missing: give both, as in `nucseg-batch models export "
                f"{model} nuclei.zip --format bioimageio`."
            )
        words = {"name": name, "authors": tuple(author or ()), "license": license, "grey": grey}
        record = _export(model, place, kind, words, overwrite=overwrite)
    if as_json:
        answer(record)


def _check_parameters(context: typer.Context, action: ModelAction) -> None:
    """Raises UsageError for what belongs to other actions."""
    for parameter, actions in OF_ACTIONS.items():
        if action not in actions and context.params.get(parameter):
            spelled = SPELLED.get(parameter, f"--{parameter}")
            places = " and ".join(f"`models {one.value}`" for one in actions)
            raise UsageError(f"{spelled} belongs to {places}, but this is `models {action.value}`.")


def _list() -> dict[str, Any]:
    from nucseg_batch.cli.console import say
    from nucseg_batch.executors.existing import default_model
    from nucseg_batch.executors.kept_models import DEFAULT, kept_models, models_folder
    from nucseg_batch.model_record import read_record

    found = []
    for name, path in {DEFAULT: default_model(), **kept_models()}.items():
        say(name)
        try:
            one = read_record(path, argument="")
        except ModelError as error:
            found.append({"name": name, "path": str(path), "error": str(error)})
            say(f"    cannot be used: {error}")
            continue
        found.append({"name": name, "path": str(path), **_summary(one)})
        size = "with" if one.sized else "without"
        say(f"    {one.task}, {one.architecture}, nuclei {one.diameter:g} pixels wide, {size} size network")
    say(f"kept in {models_folder()}; add one with: nucseg-batch models add FILE.keras")
    return {"folder": str(models_folder()), "models": found}


def _show(model: str) -> dict[str, Any]:
    import json

    from nucseg_batch.cli.console import say
    from nucseg_batch.executors.existing import default_model
    from nucseg_batch.executors.kept_models import find_model
    from nucseg_batch.files.atomic_write import file_sha256
    from nucseg_batch.model_record import read_record

    path = find_model(model, "MODEL") or default_model()
    one = read_record(path, argument="MODEL")
    record = {"path": str(path), "sha256": file_sha256(path), **_summary(one)}
    for key, value in record.items():
        say(f"{key.replace('_', ' ')}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for key, value in one.card.items():
        say(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
    return {**record, "card": one.card}


def _summary(one: ModelRecord) -> dict[str, Any]:
    """What matters for use, by the names of the record."""
    names = ("task", "architecture", "diameter", "threshold", "min_area", "intensities", "sized")
    return {**{name: getattr(one, name) for name in names}, "widths": list(one.widths)}


def _add(path: Path, name: str | None, *, overwrite: bool) -> dict[str, Any]:
    from nucseg_batch.cli.console import say
    from nucseg_batch.executors.kept_models import keep_model

    if not path.is_file():
        near = name_beside(str(path), ".keras") or "; give a model file made by `nucseg-batch train`."
        raise InputMissingError(f"MODEL {path}: there is no such file{near}")
    from nucseg_batch.network.model_file import load_model

    load_model(path, argument="MODEL")  # refuses what could not be used later
    name = path.stem if name is None else name
    kept = keep_model(path, name, replace=overwrite)
    say(f"{kept}: use it with --model {name}")
    return {"name": name, "path": str(kept)}


def _export(
    model: str, place: Path, kind: ModelFormatChoice, words: dict[str, Any], *, overwrite: bool
) -> dict[str, Any]:
    from nucseg_batch.cli.console import console_of_progress, say
    from nucseg_batch.executors.existing import default_model
    from nucseg_batch.executors.kept_models import find_model
    from nucseg_batch.results.model_export.writing import check_export, export_model, package_details

    path = find_model(model, "MODEL") or default_model()
    check_export(kind.value, place, overwrite=overwrite)
    details = package_details(path, default_model(), **words)
    console_of_progress().print("writing and testing, which takes up to a minute")
    export_model(path, place, kind.value, details)
    say(f"{place}: written and tested")
    if kind is ModelFormatChoice.bioimageio and not (details.authors and details.license):
        say("bioimage.io wants authors and a licence before it publishes a model: give --author and --license.")
    return {"model": str(path), "path": str(place), "format": kind.value}
