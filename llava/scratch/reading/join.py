"""Joins the trained finder and reader of crops into the weights of a ``LineReader``.

``python -m llava.scratch.reading.join FOLDER OUT.safetensors WORDS``, with Debian's word list for the prior of texts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from llava.model.lexical.line_reader import LineReader
from llava.scratch.reading.fit_prior import fit_prior


def join(folder: Path, path: Path, word_list: Path) -> None:
    """Writes the checkpoints of ``train_finder`` and ``train_reader`` in a folder as one safetensors file."""
    reader = LineReader()
    finder = torch.load(folder / "line_finder.pt", weights_only=True)
    reader.finder.load_state_dict(finder.get("average", finder["network"]))
    reader.crops.load_state_dict(torch.load(folder / "crop_reader.pt", weights_only=True)["average"])
    reader.prior = fit_prior(word_list)
    new = path.with_suffix(".new")
    save_file({name: value.contiguous() for name, value in reader.state_dict().items()}, new)
    os.replace(new, path)


if __name__ == "__main__":
    join(*map(Path, sys.argv[1:4]))
