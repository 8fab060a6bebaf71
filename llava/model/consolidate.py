"""FRONT DOOR: ``python -m llava.model.consolidate``, which rewrites a checkpoint's weights in float16.

It translates the command line and decides nothing; ``llava.model.delta`` does the work.

Source: haotian-liu/LLaVA@c121f04 llava/model/consolidate.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from llava.entry_point import run_command
from llava.model.delta import consolidate


def consolidate_ckpt(src_path: str, dst_path: str) -> None:
    """Writes the checkpoint in ``src_path`` into ``dst_path``. Raises CheckpointError, UsageError."""
    written = consolidate(src_path, dst_path)
    print(f"wrote {written.num_tensors} tensors to {written.folder}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line, with the original's flags, and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.model.consolidate")
    parser.add_argument("--src", required=True)
    parser.add_argument("--dst", required=True)
    args = parser.parse_args(argv)

    def work() -> int:
        consolidate_ckpt(args.src, args.dst)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
