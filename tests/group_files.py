"""Control groups as files, in the place of those of the system."""

from __future__ import annotations

from pathlib import Path


def written(place: Path, files: dict[str, str], groups: str) -> tuple[Path, Path]:
    """Writes the files of control groups and the list of those of a process; where that list is, and the groups."""
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        path = place / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (place / "groups").write_text(groups)
    return place / "groups", place / "cgroup"
