"""Small checkpoints of random weights in shapes that the engines' kernels take: heads of 32, tiles of 336 px."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from llava.image.pixels import ImageProcessor
from llava.model.checkpoint import save_checkpoint
from tests.tiny import make_model
from tests.tiny_tokenizers import byte_level, llama_like, train_sentencepiece

TOWER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 16,
}
DECODER: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "conversation_template": "llava_v1",
}
NEXT: dict[str, Any] = {
    "image_aspect_ratio": "anyres",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}
SQUARE: dict[str, Any] = {"image_aspect_ratio": "pad"}


def write_checkpoint(folder: Path, *, is_next: bool) -> None:
    """A checkpoint in the original's layout with a tokenizer like Vicuna's. It never says a byte or a special token."""
    looks = NEXT if is_next else SQUARE
    eyes = {"mm_vision_config": TOWER, "mm_hidden_size": TOWER["hidden_size"]}
    model = make_model(**{**DECODER, **eyes, **looks}).to(torch.float32)
    with torch.no_grad():
        model.lm_head.weight[:259] = 0
        model.lm_head.weight[455:] = 0
    tokenizer = llama_like(folder.with_name(folder.name + "-tokenizer"), train_sentencepiece(), legacy=False)
    processor = ImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    save_checkpoint(model, tokenizer, processor, folder)
    shutil.rmtree(folder.with_name(folder.name + "-tokenizer"))


def write_qwen(folder: Path) -> None:
    """A LLaVA on Qwen2 with a byte-level tokenizer, for images of one tile."""
    eyes = {"mm_vision_config": TOWER, "mm_hidden_size": TOWER["hidden_size"]}
    changes = {"conversation_template": "qwen_1_5", "bos_token_id": None, "eos_token_id": 0}
    model = make_model("qwen2", **{**DECODER, **eyes, **SQUARE, **changes}).to(torch.float32)
    for layer in model.model.layers:  # biases are drawn as 0
        torch.nn.init.normal_(layer.self_attn.q_proj.bias)
        torch.nn.init.normal_(layer.self_attn.v_proj.bias)
    tokenizer = byte_level(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    with torch.no_grad():
        model.lm_head.weight[len(tokenizer) :] = 0
    processor = ImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    save_checkpoint(model, tokenizer, processor, folder)
