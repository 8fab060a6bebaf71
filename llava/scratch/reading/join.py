"""Joins the trained finder and reader of crops into the weights of a ``LineReader``.

``python -m llava.scratch.reading.join FOLDER OUT.safetensors``
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from llava.model.lexical.line_reader import LineReader


def join(folder: Path, path: Path) -> None:
    """Writes the checkpoints of ``train_finder`` and ``train_reader`` in a folder as one safetensors file."""
    reader = LineReader()
    finder = torch.load(folder / "line_finder.pt", weights_only=True)
    reader.finder.load_state_dict(finder.get("average", finder["network"]))
    reader.crops.load_state_dict(torch.load(folder / "crop_reader.pt", weights_only=True)["average"])
    new = path.with_suffix(".new")
    save_file({name: value.contiguous() for name, value in reader.state_dict().items()}, new)
    os.replace(new, path)


if __name__ == "__main__":
    join(Path(sys.argv[1]), Path(sys.argv[2]))
