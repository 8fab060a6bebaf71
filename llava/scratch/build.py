"""A LLaVA-NeXT model of a recipe's shape with random weights, its tiling and its image processor."""

from __future__ import annotations

import torch
from torch import nn

from llava.image.geometry import Tiling
from llava.image.pixels import ImageProcessor
from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM
from llava.scratch import attention
from llava.scratch.stages import ModelShape

# Not a hub id: the checkpoint has this tower's weights, and config.mm_vision_config its shape.
TOWER_NAME = "clip-vit-tiny-patch14"


def build_config(shape: ModelShape, vocab_size: int) -> LlavaConfig:
    """The configuration of a model with this shape, with the original's keys."""
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
    """A model with random weights: Transformers' initialization, except for the tower's position embeddings.

    These start as the sum of a vector per row and one per column, so that the tower distinguishes neighbouring patches
    from the first step on.
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
    """Switches all modules to ``scratch.attention``, the fastest on a CPU. With a GPU it changes nothing."""
    if torch.cuda.is_available():
        return
    name = attention.register()
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            config._attn_implementation = name


def build_tiling(shape: ModelShape, aspect: str) -> Tiling:
    """The tiling of a stage: ``aspect`` "pad" is LLaVA-1.5's single tile, "anyres" LLaVA-NeXT's grid of tiles."""
    merge = "spatial_unpad" if aspect == "anyres" else "flat"
    config = {"image_aspect_ratio": aspect, "mm_patch_merge_type": merge, "image_grid_pinpoints": shape.pinpoints}
    return Tiling.from_config(config, tile_px=shape.tile_px, patch_px=shape.patch_px)


def build_processor(shape: ModelShape) -> ImageProcessor:
    """The image processor of a model with this shape: CLIP's, at the shape's tile size."""
    size = shape.tile_px
    return ImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
