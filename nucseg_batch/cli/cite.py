"""The command `cite`."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from nucseg_batch.cli.options import Out
from nucseg_batch.errors import InputMissingError
from nucseg_batch.settings import OUTPUT


class CiteFormat(StrEnum):
    """Values of --format."""

    text = "text"
    bibtex = "bibtex"
    json = "json"


def cite(
    store: Out,
    form: Annotated[
        CiteFormat,
        typer.Option(
            "--format",
            help="A paragraph and its references; the references as BibTeX; or all as JSON.",
            rich_help_panel=OUTPUT,
        ),
    ] = CiteFormat.text,
) -> None:
    """Write the methods section for a run, with citations.

    Examples:
    nucseg-batch cite out.zarr
    nucseg-batch cite out.zarr --format bibtex
    """
    from nucseg_batch.cli.console import say
    from nucseg_batch.files.run.provenance import read_provenance
    from nucseg_batch.files.run_layout import RunLayout, check_is_store
    from nucseg_batch.results.citation import paragraph, references

    check_is_store(store)
    record = read_provenance(store)
    if record is None:
        raise InputMissingError(
            f"{store}: {RunLayout(store).provenance.name} is missing or damaged; give the OUT.zarr of a "
            "finished run, or rewrite it with `nucseg-batch finish`."
        )
    if form is CiteFormat.json:
        print(json.dumps(record, indent=1, sort_keys=True))
        return
    if form is CiteFormat.bibtex:
        for reference in references(record):
            print(reference.bibtex() + "\n")
        return
    say(paragraph(record))
    say("")
    for number, reference in enumerate(references(record), start=1):
        say(f"{number}. {reference.line()}")
