"""FRONT DOOR: ``python -m llava.model.make_delta``, which writes the difference between a fine-tune and its base.

It translates the command line and decides nothing; ``llava.model.delta`` does the work. It differs from the
original on purpose: tensors are processed one at a time, in the fine-tune's own dtype, and saved as safetensors; values
that ``apply_delta`` will not restore bit by bit are counted.

Source: haotian-liu/LLaVA@c121f04 llava/model/make_delta.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from llava.entry_point import run_command
from llava.errors import LlavaError
from llava.model.delta import make_parser, take_delta


def make_delta(base_model_path: str, target_model_path: str, delta_path: str, hub_repo_id: str | None = None) -> None:
    """Writes target minus base into ``delta_path``, and uploads it to the hub if ``hub_repo_id`` is given.

    Raises CheckpointError, UsageError, and LlavaError if the upload fails.
    """
    written = take_delta(base_model_path, target_model_path, delta_path)
    print(f"wrote {written.num_tensors} tensors to {written.folder}")
    if written.num_lossy:
        print(f"{written.num_lossy:,} values will be rounded: there the base is much larger than the fine-tune")
    if hub_repo_id:
        _upload(written.folder, hub_repo_id)


def _upload(folder: Path, repo_id: str) -> None:
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repo_id, exist_ok=True)
        HfApi().upload_folder(repo_id=repo_id, folder_path=folder)
    except Exception as error:
        raise LlavaError(f"The delta is in {folder}, but uploading it as '{repo_id}' failed: {error}") from error
    print(f"uploaded it to {repo_id}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line, with the original's flags, and returns the exit code."""
    parser = make_parser("python -m llava.model.make_delta")
    parser.add_argument("--hub-repo-id")
    args = parser.parse_args(argv)

    def work() -> int:
        make_delta(args.base_model_path, args.target_model_path, args.delta_path, args.hub_repo_id)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
