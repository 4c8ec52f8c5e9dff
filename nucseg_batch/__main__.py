"""The program: `python -m nucseg_batch` is the same as `nucseg-batch`."""

from __future__ import annotations

import gc
import logging
import signal


def main() -> None:
    """Runs the command line as the whole of a process, which ends with it.

    Before the command line is imported and after it there is nothing to clean up: Ctrl-C then ends the process as the
    system does it, without a traceback.
    """
    listening = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # shells' background jobs ignore it
    if listening:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nucseg_batch.cli.main import main as command_line
    from nucseg_batch.cli.main import parser
    from nucseg_batch.machine.own_process import claim

    claim()
    parser()
    try:
        if listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command_line()
    finally:
        if listening:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        # zarr's event loop outlives an interrupted command, and its pending reads fail when the interpreter ends
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        gc.freeze()  # the interpreter would else search all objects for garbage before it ends: a second with Keras


if __name__ == "__main__":
    main()
