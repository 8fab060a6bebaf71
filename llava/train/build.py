"""A LLaVA-NeXT model from nothing, in the shape a recipe gives, and its stages' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llava.errors import UsageError
from llava.image.geometry import Tiling
from llava.image.pixels import ImageProcessor
from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM
from llava.train import attention
from llava.train.oracle import attach_oracle
from llava.train.recipe import ModelShape

WEIGHTS = "weights.safetensors"
# Not a hub id: the checkpoint holds this tower's weights, and config.mm_vision_config its shape.
TOWER_NAME = "clip-vit-tiny-patch14"


def build_config(shape: ModelShape, vocab_size: int) -> LlavaConfig:
    """The config.json of a model with this shape, in the original's keys."""
    tower, decoder = shape.tower, shape.decoder
    return LlavaConfig(
        vocab_size=vocab_size,
        hidden_size=decoder.hidden_size,
        num_hidden_layers=decoder.layers,
        num_attention_heads=decoder.heads,
        num_key_value_heads=decoder.kv_heads,
        intermediate_size=decoder.intermediate_size,
        max_position_embeddings=decoder.context_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": decoder.rope_theta},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        use_mm_proj=True,
        mm_projector_type="mlp2x_gelu",
        mm_hidden_size=tower.hidden_size,
        mm_vision_tower=TOWER_NAME,
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        mm_patch_merge_type="spatial_unpad",
        mm_use_im_start_end=False,
        mm_use_im_patch_token=False,
        unfreeze_mm_vision_tower=True,
        image_aspect_ratio="anyres",
        image_grid_pinpoints=[list(pinpoint) for pinpoint in shape.pinpoints],
        tokenizer_padding_side="right",
        tokenizer_model_max_length=decoder.context_tokens,
        conversation_template=shape.template,
        mm_vision_config={
            "hidden_size": tower.hidden_size,
            "intermediate_size": tower.intermediate_size,
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
            "image_size": shape.tile_px,
            "patch_size": shape.patch_px,
            "projection_dim": tower.hidden_size,
        },
    )


def build_model(shape: ModelShape, vocab_size: int, seed: int) -> LlavaLlamaForCausalLM:
    """A model with random weights: Transformers' initial values, but for the tower's position vectors.

    Those start as a sum of a row's and a column's vector: neighbours are then told apart from the first step on.
    """
    torch.manual_seed(seed)
    model = LlavaLlamaForCausalLM(build_config(shape, vocab_size))
    side = shape.tile_px // shape.patch_px
    tower = model.get_vision_tower()
    assert tower is not None
    table = tower.vision_tower.vision_model.embeddings.position_embedding.weight
    width = table.shape[1]
    with torch.no_grad():
        grid = torch.randn(side, 1, width) + torch.randn(1, side, width)
        table[1:] = 0.25 * grid.flatten(0, 1) + 0.05 * torch.randn(side * side, width)
    return model


def use_fast_attention(model: nn.Module) -> None:
    """Trains with the CPU's fastest attention for short sequences; GPUs keep Transformers' choice."""
    if torch.cuda.is_available():
        return
    name = attention.register()
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            config._attn_implementation = name


def build_tiling(shape: ModelShape, aspect: str) -> Tiling:
    """How a stage cuts pictures: "pad" is LLaVA-1.5's single tile, "anyres" LLaVA-NeXT's grid."""
    merge = "spatial_unpad" if aspect == "anyres" else "flat"
    config = {"image_aspect_ratio": aspect, "mm_patch_merge_type": merge, "image_grid_pinpoints": shape.pinpoints}
    return Tiling.from_config(config, tile_px=shape.tile_px, patch_px=shape.patch_px)


def build_processor(shape: ModelShape) -> ImageProcessor:
    size = shape.tile_px
    return ImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def freeze_parts(model: LlavaLlamaForCausalLM, train: Sequence[str]) -> None:
    """Lets the named parts learn and nothing else; the newline vector goes with the language model.

    As mm_tunable_parts does in LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py.
    """
    for name, parameter in model.named_parameters():
        if "vision_tower" in name:
            part = "tower"
        elif "mm_projector" in name:
            part = "projector"
        else:
            part = "language_model"
        parameter.requires_grad_(part in train)
    tower = model.get_vision_tower()
    assert tower is not None
    blocks = tower.vision_tower.vision_model.encoder.layers
    # Blocks behind the layer that is read, and the last norm, get no gradient; frozen, no optimizer moves them.
    for unused in (*blocks[tower.num_blocks_run :], tower.vision_tower.vision_model.post_layernorm):
        unused.requires_grad_(False)


def save_weights(parts: Mapping[str, nn.Module], folder: Path, without: Sequence[str] = ()) -> None:
    """Writes the modules' tensors, each under its prefix, into the stage's folder.

    ``without``: parts of names that are left out. A stage saves only what it knows something of: a later stage takes
    over everything it finds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        prefix + name: value.detach().contiguous().clone()
        for prefix, module in parts.items()
        for name, value in module.state_dict().items()
        if not any(part in name for part in without)
    }
    temporary = folder / f"{WEIGHTS}.partial"
    save_file(state, temporary)
    temporary.replace(folder / WEIGHTS)


def load_stage_weights(model: LlavaLlamaForCausalLM, heads: nn.Module, folders: Sequence[Path]) -> None:
    """Takes over what earlier stages learnt, in order; a tensor that fits nowhere is an error."""
    for folder in folders:
        if not (folder / WEIGHTS).is_file():
            raise UsageError(f"The stage '{folder.name}' has not been run: {folder / WEIGHTS} does not exist.")
        state: dict[str, Any] = load_file(folder / WEIGHTS)
        if any(name.startswith("oracle.") for name in state) and not hasattr(model, "oracle"):
            attach_oracle(model)
        of_heads = {name.removeprefix("heads."): state.pop(name) for name in list(state) if name.startswith("heads.")}
        if of_heads:
            heads.load_state_dict(of_heads)
        _, unexpected = model.load_state_dict(state, strict=False)
        if unexpected:
            raise UsageError(f"{folder / WEIGHTS} holds '{unexpected[0]}', which this recipe's model does not have.")
