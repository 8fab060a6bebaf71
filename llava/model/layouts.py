"""What tensors are called: the names in files, of every layout there is, and the names in this package's modules.

Ours are the original's, so its files need no translation. Each ``name_from_*`` takes a name as a file has it and
returns ours, or None for a tensor that a rule here leaves out; a name that no rule knows comes back as it is and
is found to be left over. ``name_to_hf`` goes the other way.

    ours, the original's                             llava-hf's files, each with or without a leading "model."
    model.vision_tower.vision_tower.vision_model.X   vision_tower.vision_model.X or vision_tower.X
    model.mm_projector.0.X  model.mm_projector.2.X   multi_modal_projector.linear_1.X  multi_modal_projector.linear_2.X
    model.image_newline                              image_newline
    model.X                                          language_model.model.X or language_model.X
    lm_head.weight                                   language_model.lm_head.weight or lm_head.weight

Source: haotian-liu/LLaVA@c121f04 checkpoints; transformers 5.23 conversion_mapping.py and models/llava_next.
"""

from __future__ import annotations

import re

TOWER = "model.vision_tower.vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"
HEAD = "lm_head.weight"
EMBEDDINGS = "model.embed_tokens.weight"

# Buffers that older versions wrote beside the weights; they follow from the configuration and are computed anew.
_COMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|embeddings\.position_ids)$")
# The text half of a complete CLIP or SigLIP, and what joins the two halves.
_TEXT_HALF = re.compile(r"^(text_model\.|text_projection\.|visual_projection\.|logit_scale$|logit_bias$)")
# What pools SigLIP's patches into one vector, which no LLaVA reads.
_POOLING = re.compile(rf"^{re.escape(TOWER)}head\.")

_FROM_HF = (
    (re.compile(r"^(?:model\.)?vision_tower\.(?:vision_model\.)?"), TOWER),
    (re.compile(r"^(?:model\.)?multi_modal_projector\.linear_1\."), PROJECTOR + "0."),
    (re.compile(r"^(?:model\.)?multi_modal_projector\.linear_2\."), PROJECTOR + "2."),
    (re.compile(r"^(?:model\.)?image_newline$"), NEWLINE),
    (re.compile(r"^(?:model\.)?language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^(?:model\.language_model\.|language_model\.model\.|language_model\.)"), "model."),
)
_TO_HF = (
    (TOWER, "vision_tower.vision_model."),
    (PROJECTOR + "0.", "multi_modal_projector.linear_1."),
    (PROJECTOR + "2.", "multi_modal_projector.linear_2."),
    (NEWLINE, "image_newline"),
    (HEAD, "language_model.lm_head.weight"),
    ("model.", "language_model.model."),
)


def find_tower_block(name: str) -> int | None:
    """The number of the tower's block that a tensor of one of our names belongs to."""
    block = re.match(rf"{re.escape(TOWER)}encoder\.layers\.(\d+)\.", name)
    return None if block is None else int(block[1])


def name_from_original(name: str) -> str | None:
    """Of a checkpoint in the original's layout, or of a plain Llama, Mistral or Qwen2."""
    return None if _COMPUTED.search(name) or _POOLING.match(name) else name


def name_from_hf(name: str) -> str | None:
    """Of a llava-hf checkpoint, as written by any Transformers: 4.36-4.51, 4.52-5.5, 5.6 and later."""
    if _COMPUTED.search(name):
        return None
    for pattern, ours in _FROM_HF:
        if pattern.match(name):
            return name_from_original(pattern.sub(ours, name, count=1))
    return name


def name_to_hf(name: str) -> str:
    """Of one of our names, what it is called in llava-hf's repositories; every Transformers and vLLM read these."""
    for ours, theirs in _TO_HF:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


def name_from_any(name: str) -> str | None:
    """Of a file that may use our names or any of llava-hf's: what a fine-tune of either saved."""
    return name_from_original(name) if name.startswith(TOWER) else name_from_hf(name)


def name_from_tower(name: str) -> str | None:
    """Of a tower's folder: a vision tower, or a complete CLIP or SigLIP whose text half is left out."""
    if _TEXT_HALF.match(name):
        return None
    return name_from_original(TOWER + name.removeprefix("vision_model."))
