"""Times lazy labels of a whole stack of small planes, by how many planes are in a block; labels must be the same.

    python tests/benchmarks/stack_blocks.py SOURCE [--side 256] [--planes 40] [--blocks 40 8 1] [--repeat 5]

Planes are the grey images of side x side pixels of SOURCE, repeated. All is one process, and kinds alternate after a
first round that does not count; `CPU seconds` are those of all threads, and `CPU by first` is by the first kind.
"""

from __future__ import annotations

import sys
import time

import common
import inputs
import numpy as np

import nucseg_batch


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=5)
    parser.add_argument("--side", type=int, default=256, help="of the planes in pixels (256)")
    parser.add_argument("--planes", type=int, default=40, help="of the stack (40)")
    parser.add_argument("--blocks", type=int, nargs="+", default=[40, 8, 1], help="planes in a block (40 8 1)")
    parser.add_argument("--diameter", type=float, help="of nuclei in pixels (estimated)")
    arguments = parser.parse_args()
    pictures = inputs.grey_pictures(arguments.source, arguments.side)
    stack = np.stack([pictures[number % len(pictures)].pixels for number in range(arguments.planes)])
    runs: dict[int, list[dict[str, float]]] = {planes: [] for planes in arguments.blocks}
    reference = None
    for number in range(arguments.repeat + 1):
        for planes, rows in runs.items():
            options = {"planes_per_block": planes, "diameter": arguments.diameter, "dense": True}
            began, cpu = time.perf_counter(), time.process_time()
            labels = nucseg_batch.segment_array(stack, axes="zyx", **options).compute()
            row = {"seconds": time.perf_counter() - began, "CPU seconds": time.process_time() - cpu}
            reference = labels if reference is None else reference
            if not np.array_equal(labels, reference):
                sys.exit(f"labels in blocks of {planes} planes differ")
            if number:
                rows.append(row)
                row["CPU by first"] = row["CPU seconds"] / runs[arguments.blocks[0]][-1]["CPU seconds"]
    table = [{"planes in a block": planes, **common.medians(these)} for planes, these in runs.items()]
    common.tell(arguments, table, {"runs": {str(planes): these for planes, these in runs.items()}})


if __name__ == "__main__":
    main()
