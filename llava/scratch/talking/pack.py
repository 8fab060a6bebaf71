"""Writes what was trained into the talking model's folder, and pins it in its parts.json.

    python -m llava.scratch.talking.pack --reader reader.safetensors --objects objects.safetensors
        --checkpoint RUN/checkpoint.pt

The towers are kept in float16 and the adapter and the projector in bfloat16. Batch norms become scales and shifts.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llava.model.assembled.pretrained_parts import pin_own
from llava.model.lexical.frozen_norms import freeze_norms
from llava.model.lexical.lexical_projector import LexicalProjector
from llava.model.lexical.line_reader import LineReader
from llava.model.lexical.object_finder import ObjectFinder
from llava.scratch.talking.small_llama import ADAPTED, Sizes

FOLDER = Path(__file__).parents[2] / "talking_model"


def pack_tower(tower: nn.Module, weights: Path) -> dict[str, torch.Tensor]:
    """The tensors of a tower as the lexical tower has them, float16."""
    tower.load_state_dict(load_file(weights))
    freeze_norms(tower)
    return {name: value.half().contiguous() for name, value in tower.state_dict().items()}


def name_adapter(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An adapter's tensors by the checkpoint's names, bfloat16."""
    return {
        f"model.layers.{layer}.{name}.image_lora_{side}.weight": weights[
            f"{side}.{layer}_{name.replace('.', '_')}"
        ].bfloat16()
        for layer in range(Sizes.layers)
        for name in ADAPTED
        for side in "AB"
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--objects", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True, help="of llava.scratch.talking.adapter_training")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    state = torch.load(arguments.checkpoint, weights_only=True)
    projector = LexicalProjector(SimpleNamespace(hidden_size=Sizes.hidden))
    projector.load_state_dict(state["projector"])
    files = {
        "reader": pack_tower(LineReader(), arguments.reader),
        "objects": pack_tower(ObjectFinder(), arguments.objects),
        "projector": {name: value.bfloat16().contiguous() for name, value in projector.state_dict().items()},
        "adapter": name_adapter(state["adapter"]),
    }
    for name, tensors in files.items():
        save_file(tensors, arguments.folder / f"{name}.safetensors", {"format": "pt"})
        print(f"{name}: {sum(value.nbytes for value in tensors.values()) / 1e6:.1f} MB in {len(tensors)} tensors")
    pin_own(arguments.folder)


if __name__ == "__main__":
    main()
