"""Joins the trained finder and reader of crops into the weights of a ``LineReader``.

``python -m llava.scratch.reading.join FOLDER OUT.safetensors WORDS``, with Debian's word list for the prior, or
``... FOLDER OUT.safetensors READER.safetensors``, which takes what is not in the folder from a packed reader.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llava.model.lexical.line_reader import LineReader
from llava.scratch.reading.fit_prior import fit_prior
from llava.scratch.reading.unfuse import load_fused


def join(folder: Path, path: Path, rest: Path) -> None:
    """Writes the checkpoints of ``train_finder`` and ``train_reader`` in a folder as one safetensors file.

    ``rest``: a word list, or a packed reader.
    """
    reader = LineReader()
    if rest.suffix == ".safetensors":
        packed = load_file(rest)
        for name, part in (("finder", reader.finder), ("prior", reader.prior)):
            load_fused(
                part, {key.removeprefix(f"{name}."): packed[key] for key in packed if key.startswith(f"{name}.")}
            )
    else:
        reader.prior = fit_prior(rest)
    if (folder / "line_finder.pt").exists() or rest.suffix != ".safetensors":
        finder = torch.load(folder / "line_finder.pt", weights_only=True)
        reader.finder.load_state_dict(finder.get("average", finder["network"]))
    reader.crops.load_state_dict(torch.load(folder / "crop_reader.pt", weights_only=True)["average"])
    new = path.with_suffix(".new")
    save_file({name: value.contiguous() for name, value in reader.state_dict().items()}, new)
    os.replace(new, path)


if __name__ == "__main__":
    join(*map(Path, sys.argv[1:4]))
