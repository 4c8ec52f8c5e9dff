"""How votes for centres are counted: what both ways to separate nuclei, `instances` and `host_instances`, share."""

from __future__ import annotations

from nucseg_batch.arrays.confidence import FULL

VOTE = FULL
"""Votes of a pixel that is certainly foreground; a pixel has its probability in these parts."""
BLUR = 7
"""Width of the box that votes are blurred with, twice along each axis (together a sigma of 2.8 pixels); odd."""
WINDOW_RADIUS = 7
"""Places link to the strongest place at most this far away along each axis; at most 7."""
JUMPS = 4
"""Doublings of the links: chains of up to 2**JUMPS links are followed to their end."""
MIN_ROOT_VOTES = 3
"""A root needs as many blurred votes as this many certain pixels that vote for it exactly."""

CODE_BITS = 4
CODE = 2**CODE_BITS
"""Coordinates travel modulo this, in so many low bits each of the votes."""
