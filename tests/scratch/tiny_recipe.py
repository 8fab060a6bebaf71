"""A recipe that trains a model from scratch through all its stages in seconds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

KINDS = {"shapes": 1.0, "lines": 1.0}
_SHARED = {"steps": 2, "lr": 1e-3, "log_steps": 1, "data": {"kinds": KINDS, "sizes": [[96, 112, 96, 112]]}}
_RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "tile_px": 56,
        "patch_px": 14,
        "pinpoints": [[56, 112], [112, 56], [112, 112]],
        "tower": {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32},
        "decoder": {"hidden_size": 16, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate_size": 32},
    },
    "stages": [
        {**_SHARED, "name": "tower", "kind": "tower", "batch_size": 4, "optimizer": "muon"},
        {**_SHARED, "name": "decoder", "kind": "oracle", "batch_size": 2, "aspect": "pad"},
        {**_SHARED, "name": "align", "kind": "align", "start": ["tower", "decoder"], "batch_size": 4},
        {
            **_SHARED,
            "name": "next",
            "kind": "instruct",
            "start": ["align"],
            "train": ["vision_tower", "projector", "image_newline", "language_model"],
            "patch_loss": 0.5,
            "batch_size": 2,
        },
    ],
}


def tiny_recipe() -> dict[str, Any]:
    """A copy of its values, with the stages tower, decoder, align and next."""
    return copy.deepcopy(_RECIPE)


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Writes the recipe with these top-level changes to a file."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**tiny_recipe(), **changes}), encoding="utf-8")
    return path
