"""Times one plane that is too large for one piece of work: OME-Zarr in, OME-Zarr and tables out.

    python tests/benchmarks/large_zarr.py SOURCE [--side 8192] [--chunk 1024] [--repeat 2]

The plane is a mosaic of the grey 256x256 images (--tile) of SOURCE, chosen, turned and mirrored at random with a fixed
seed. With several --side the largest should take no more memory than the smallest.
"""

from __future__ import annotations

import common
import inputs


def main() -> None:
    """Runs the benchmark."""
    parser = common.parser(__doc__ or "", repeat=2)
    parser.add_argument("--side", type=int, nargs="+", default=[8192], help="of the plane in pixels (8192)")
    parser.add_argument("--chunk", type=int, default=1024, help="side of its chunks (1024)")
    parser.add_argument("--tile", type=int, default=256, help="side of the images that are taken (256)")
    common.add_model_options(parser)
    arguments = parser.parse_args()
    pictures = inputs.grey_pictures(arguments.source, arguments.tile)
    options = common.segment_options(arguments)
    runs: dict[int, list[dict[str, float]]] = {side: [] for side in arguments.side}
    with common.scratch(arguments) as place:
        store = place / "out.zarr"
        chunks = (arguments.chunk, arguments.chunk)
        planes = {
            side: inputs.write_zarr(place / f"in{side}.zarr", [inputs.mosaic(pictures, side)], "yx", chunks)
            for side in arguments.side
        }
        for _ in range(arguments.repeat):
            for side in arguments.side:
                result = common.segment(planes[side], store, side**2, options)
                files = common.files_written(store)
                result |= {"files in store": files["store"], "files in run folder": files["run"]}
                runs[side].append(result)
                common.remove_output(store)
                print(f"{side} pixels: {result}", flush=True)
    rows = [{"side": side, **common.medians(these)} for side, these in runs.items()]
    common.tell(arguments, rows, {"runs": runs})


if __name__ == "__main__":
    main()
