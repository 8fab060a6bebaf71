"""llama.cpp's names of tensors and the original's, and the order of the rows in its q and k matrices.

    ours, the original's                       llama.cpp's model file
    model.embed_tokens.weight                  token_embd.weight
    model.layers.N.self_attn.q_proj.X          blk.N.attn_q.X
    model.norm.weight, lm_head.weight          output_norm.weight, output.weight

    ours, the original's                       llama.cpp's mmproj file
    ....vision_model.encoder.layers.N.X        v.blk.N.X
    model.mm_projector.0.X                     mm.0.X
    model.image_newline                        model.image_newline, or v.image_newline

The mmproj files of LLaVA call the first matrix of a block's MLP ``ffn_down`` and the second ``ffn_up``, the wrong way
round; llama.cpp tells by their shapes, and so does this module. It writes the wrong way, which every version reads.

Source: ggml-org/llama.cpp as in llama-cpp-python 0.3.36: tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py
(get_tensor_name), tools/mtmd/clip.cpp (is_ffn_swapped), conversion/llama.py (permute).
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

from llava.model import layouts

_WHOLE = {
    "token_embd.weight": layouts.EMBEDDINGS,
    "output_norm.weight": "model.norm.weight",
    "output.weight": layouts.HEAD,
    "model.image_newline": layouts.NEWLINE,
    "v.image_newline": layouts.NEWLINE,
    "v.class_embd": layouts.TOWER + "embeddings.class_embedding",
    "v.patch_embd.weight": layouts.TOWER + "embeddings.patch_embedding.weight",
    "v.position_embd.weight": layouts.TOWER + "embeddings.position_embedding.weight",
}
_DECODER_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOWER_BLOCK = {
    "ln1": "layer_norm1",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ln2": "layer_norm2",
    "ffn_down": "mlp.fc1",
    "ffn_up": "mlp.fc2",
}
_TOWER_NORMS = {"pre_ln": "pre_layrnorm", "post_ln": "post_layernorm"}
# Computed from the configuration instead: see gguf_config about rope_freqs.
_COMPUTED = re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd")
_BLOCK = re.compile(r"(v\.)?blk\.(\d+)\.(\w+)\.(weight|bias)")

FIRST_FFN = "v.blk.0.ffn_down.weight"
"""The tensor by whose shape a file tells which of its names are the wrong way round."""


def make_renamer(*, is_straight: bool) -> Callable[[str], str | None]:
    """The function from llama.cpp's names to ours, which returns a name that no rule matches unchanged.

    ``is_straight``: the tower's ``ffn_up`` is the first matrix of its MLP, as the word says.
    """
    tower = dict(_TOWER_BLOCK)
    if is_straight:
        tower["ffn_down"], tower["ffn_up"] = tower["ffn_up"], tower["ffn_down"]

    def rename(name: str) -> str | None:
        if _COMPUTED.fullmatch(name):
            return None
        if name in _WHOLE:
            return _WHOLE[name]
        block = _BLOCK.fullmatch(name)
        if block is not None:
            parts = tower if block[1] else _DECODER_BLOCK
            prefix = f"{layouts.TOWER}encoder.layers." if block[1] else "model.layers."
            return f"{prefix}{block[2]}.{parts[block[3]]}.{block[4]}" if block[3] in parts else name
        start, _, rest = name.partition(".")
        norm, _, leaf = rest.partition(".")
        if start == "v" and norm in _TOWER_NORMS:
            return f"{layouts.TOWER}{_TOWER_NORMS[norm]}.{leaf}"
        if re.fullmatch(r"mm\.\d+\.(weight|bias)", name):
            return layouts.PROJECTOR + name.removeprefix("mm.")
        return name

    return rename


def name_to_gguf(ours: str) -> str:
    """llama.cpp's name for one of our names."""
    for theirs, name in _WHOLE.items():
        if name == ours:
            return theirs
    if ours.startswith(layouts.PROJECTOR):
        return "mm." + ours.removeprefix(layouts.PROJECTOR)
    is_tower = ours.startswith(layouts.TOWER)
    parts, prefix = (_TOWER_BLOCK, "v.") if is_tower else (_DECODER_BLOCK, "")
    rest = ours.removeprefix(layouts.TOWER + "encoder." if is_tower else "model.")
    block = re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", rest)
    if block is not None:
        word = next(word for word, name in parts.items() if name == block[2])
        return f"{prefix}blk.{block[1]}.{word}.{block[3]}"
    norm, _, leaf = ours.removeprefix(layouts.TOWER).rpartition(".")
    return f"v.{next(word for word, name in _TOWER_NORMS.items() if name == norm)}.{leaf}"


def count_heads(name: str, num_heads: int, num_kv_heads: int) -> int | None:
    """How many heads a matrix of an architecture ``llama`` has whose rows llama.cpp stores in another order; else None.

    ``name``: llama.cpp's.
    """
    match = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name)
    return None if match is None else num_heads if match[1] == "q" else num_kv_heads


def interleave(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The rows as llama.cpp stores them: the two halves that rotary embeddings turn lie side by side in each head."""
    halves = weight.view(num_heads, 2, -1, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def separate(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The inverse of ``interleave``."""
    pairs = weight.view(num_heads, -1, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)
