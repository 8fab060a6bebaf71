"""Writes what was trained into the talking model's folder, and pins it in its parts.json.

    python -m llava.scratch.talking.pack --reader reader.safetensors --objects objects.safetensors
        --checkpoint RUN/checkpoint.pt

Towers become float16, their batch norms scales and shifts; the adapter and the projector become bfloat16. What is left
out stays as it was packed before.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llava.model.assembled.pretrained_parts import pin_own
from llava.model.lexical.frozen_norms import freeze_norms
from llava.model.lexical.line_reader import LineReader
from llava.model.lexical.object_finder import ObjectFinder
from llava.scratch.talking.small_llama import name_adapter

Tensors = dict[str, torch.Tensor]

FOLDER = Path(__file__).parents[2] / "talking_model"


def pack_tower(tower: nn.Module, weights: Mapping[str, torch.Tensor]) -> Tensors:
    """The tensors of a tower as the lexical tower has them, float16. ``weights``: as it was trained."""
    tower.load_state_dict(weights)
    freeze_norms(tower)
    return {name: value.half().contiguous() for name, value in tower.state_dict().items()}


def pack_checkpoint(state: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Tensors]:
    """The projector's and the adapter's tensors, by file, from a checkpoint of ``adapter_training``; bfloat16."""
    files = {"projector": state["projector"], "adapter": name_adapter(state["adapter"])}
    return {file: {name: value.bfloat16().contiguous() for name, value in each.items()} for file, each in files.items()}


def write_files(files: Mapping[str, Tensors], folder: Path) -> None:
    """Writes safetensors into the folder, by their names without a suffix, and pins them in its parts.json."""
    for name, tensors in files.items():
        save_file(tensors, folder / f"{name}.safetensors", {"format": "pt"})
        print(f"{name}: {sum(value.nbytes for value in tensors.values()) / 1e6:.1f} MB in {len(tensors)} tensors")
    pin_own(folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", type=Path)
    parser.add_argument("--objects", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="of llava.scratch.talking.adapter_training")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    files: dict[str, Tensors] = {}
    if arguments.reader is not None:
        files["reader"] = pack_tower(LineReader(), load_file(arguments.reader))
    if arguments.objects is not None:
        files["objects"] = pack_tower(ObjectFinder(), load_file(arguments.objects))
    if arguments.checkpoint is not None:
        files |= pack_checkpoint(torch.load(arguments.checkpoint, weights_only=True))
    if not files:
        parser.error("--reader, --objects or --checkpoint has to be given")
    write_files(files, arguments.folder)


if __name__ == "__main__":
    main()
