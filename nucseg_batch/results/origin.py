"""What every file that is made of a run says of where it is from."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from nucseg_batch import __version__
from nucseg_batch.files.names import printable
from nucseg_batch.files.run.provenance import read_provenance
from nucseg_batch.results.run import FinishedRun
from nucseg_batch.settings import SegmentSettings


def origin(run: FinishedRun) -> dict[str, str]:
    """What made a run, as short texts by name; `software` names the program and the version that segmented."""
    made = read_provenance(run.store) or {}
    model, given = _part(made, "model"), _part(made, "input")
    texts = {
        "software": f"nucseg-batch {made.get('version') or __version__}",
        "store": printable(run.store.name),
        "model": model.get("name"),
        "model_sha256": model.get("sha256"),
        "input_sha256": given.get("sha256"),
        "settings": _settings(made),
    }
    return {name: str(text) for name, text in texts.items() if text}


def _settings(made: dict[str, Any]) -> str:
    """What decided the masks, as JSON: the model's threshold and smallest area unless others were given."""
    model, given = _part(made, "model"), _part(made, "settings")
    if not given:
        return ""
    own = {name: model.get(name) for name in ("threshold", "min_area")}
    usual = asdict(SegmentSettings())
    said = {name: value for name, value in given.items() if value != usual.get(name)}
    return json.dumps({**own, **said}, sort_keys=True)


def _part(record: dict[str, Any], name: str) -> dict[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}
