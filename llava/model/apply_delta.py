"""FRONT DOOR: ``python -m llava.model.apply_delta``, which adds a delta to its base.

It translates the command line and decides nothing; ``llava.model.delta`` does the work. It differs from the
original on purpose: tensors are processed one at a time, in the delta's own dtype, and saved as safetensors.

Source: haotian-liu/LLaVA@c121f04 llava/model/apply_delta.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llava.entry_point import run_command
from llava.model.delta import add_delta, make_parser


def apply_delta(base_model_path: str, target_model_path: str, delta_path: str) -> None:
    """Writes the sum of base and delta into ``target_model_path``. Raises CheckpointError, UsageError."""
    written = add_delta(base_model_path, delta_path, target_model_path)
    print(f"wrote {written.num_tensors} tensors to {written.folder}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line, with the original's flags, and returns the exit code."""
    args = make_parser("python -m llava.model.apply_delta").parse_args(argv)

    def work() -> int:
        apply_delta(args.base_model_path, args.target_model_path, args.delta_path)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
