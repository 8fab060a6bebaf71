"""Models small enough to run in milliseconds, with every part that the released ones have."""

from __future__ import annotations

from typing import Any

import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.llava import (
    LlavaConfig,
    LlavaLlamaForCausalLM,
    LlavaMistralConfig,
    LlavaMistralForCausalLM,
    LlavaQwenConfig,
    LlavaQwenForCausalLM,
)

CLASSES: dict[str, tuple[type, type]] = {
    "llama": (LlavaConfig, LlavaLlamaForCausalLM),
    "mistral": (LlavaMistralConfig, LlavaMistralForCausalLM),
    "qwen2": (LlavaQwenConfig, LlavaQwenForCausalLM),
}
FAMILIES = tuple(CLASSES)

TILE_PX = 28
SIDE = 4  # features of a tile along one side
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": TILE_PX,
    "patch_size": TILE_PX // SIDE,
    "projection_dim": 16,
}
DECODER: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    # Large enough for random weights to prefer one token clearly, so that greedy answers do not hang on rounding.
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SQUARE: dict[str, Any] = {"image_aspect_ratio": "pad"}
ANYRES: dict[str, Any] = {
    "image_aspect_ratio": "anyres",
    "mm_patch_merge_type": "spatial_unpad",
    # The released list, scaled to the tile.
    "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]],
}

SLOT = IMAGE_TOKEN_INDEX
# Two images in a row of text, one image in a shorter row, and text alone.
ROWS = [[1, 5, SLOT, 7, SLOT, 9, 11], [1, SLOT, 6], [1, 8, 9, 10]]
TILES = (5, 3, 4)
SIZES = [(50, 40), (20, 28), (80, 20)]


def make_config(family: str = "llama", **changes: Any) -> Any:
    """A LLaVA-1.6 configuration unless ``changes`` say otherwise; ``**SQUARE`` makes it a 1.5 one."""
    defaults = ANYRES if changes.get("image_aspect_ratio", "anyres") == "anyres" else {}
    eyes = {
        "mm_vision_config": TOWER,
        "mm_hidden_size": TOWER["hidden_size"],
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": "mlp2x_gelu",
    }
    return CLASSES[family][0](**{**DECODER, **eyes, **defaults, **changes})


def make_model(family: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A model with random weights in evaluation mode."""
    torch.manual_seed(seed)
    return CLASSES[family][1](make_config(family, **changes)).eval()


def make_pixels(*num_tiles: int, seed: int = 1) -> list[torch.Tensor]:
    """Random images of so many tiles each."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(num, 3, TILE_PX, TILE_PX, generator=generator) for num in num_tiles]


def pad(rows: list[list[int]], side: str = "right") -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    gaps = [[0] * (width - len(row)) for row in rows]
    ids = [row + gap if side == "right" else gap + row for row, gap in zip(rows, gaps, strict=True)]
    mask = [
        [1] * len(row) + gap if side == "right" else gap + [1] * len(row) for row, gap in zip(rows, gaps, strict=True)
    ]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def make_labels(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    ids = batch["input_ids"]
    labels = torch.where((ids == SLOT) | (batch["attention_mask"] == 0), IGNORE_INDEX, ids)
    labels[:, 0] = IGNORE_INDEX  # nothing comes before the first token that could foretell it
    return labels


def make_lesson() -> dict[str, Any]:
    batch = pad(ROWS)
    return {**batch, "labels": make_labels(batch), "images": make_pixels(*TILES), "image_sizes": SIZES}
