"""The Linux control groups that limit this process, of versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/proc/self/cgroup")
"""The file that names the control groups of this process."""
MOUNTED = Path("/sys/fs/cgroup")
"""Where their file system is."""


def control_groups(controller: str, groups: Path = GROUPS, mounted: Path = MOUNTED) -> Iterator[Path]:
    """Folders of the groups in which a controller (`cpu`, `memory`) may limit this process, the innermost first.

    Each is followed by the groups that it is in. Nothing where the system has no control groups.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:  # number:controllers:path
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = mounted  # of version 2; in version 1 each set of controllers has a folder
        if controllers:
            top = next((one for one in (mounted / controllers, mounted / controller) if one.is_dir()), mounted)
        group = top / path.strip("/")
        while True:  # in a container the path may be that of the host, and only the top is there
            yield group
            if group == top:
                break
            group = group.parent
