"""Tensor names: those in files, in every layout, and those of this package's modules.

Our names are the original's, so its files need no translation. Each ``name_from_*`` takes a name in a file and returns
ours, or None for a tensor that is skipped; a name that no rule matches is returned unchanged and reported as unexpected
later. ``name_to_hf`` goes the other way.

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

# Buffers that older versions saved beside the weights; they are computed from the configuration instead.
_COMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|embeddings\.position_ids)$")
# The text half of a complete CLIP or SigLIP, and the projections and scale that join the two halves.
_TEXT_HALF = re.compile(r"^(text_model\.|text_projection\.|visual_projection\.|logit_scale$|logit_bias$)")
# SigLIP's pooling head, which no LLaVA uses.
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
    """The number of the tower's block that the tensor of our name ``name`` belongs to; None if it is in no block."""
    block = re.match(rf"{re.escape(TOWER)}encoder\.layers\.(\d+)\.", name)
    return None if block is None else int(block[1])


def name_from_original(name: str) -> str | None:
    """Our name of a tensor of a checkpoint in the original's layout, or of a plain Llama, Mistral or Qwen2."""
    return None if _COMPUTED.search(name) or _POOLING.match(name) else name


def name_from_hf(name: str) -> str | None:
    """Our name of a tensor of a llava-hf checkpoint, saved by Transformers 4.36-4.51, 4.52-5.5, or 5.6 and later."""
    if _COMPUTED.search(name):
        return None
    for pattern, ours in _FROM_HF:
        if pattern.match(name):
            return name_from_original(pattern.sub(ours, name, count=1))
    return name


def name_to_hf(name: str) -> str:
    """llava-hf's name for one of our names, as its repositories have it; every Transformers and vLLM read these."""
    for ours, theirs in _TO_HF:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(name)


def name_from_any(name: str) -> str | None:
    """Our name of a tensor in a fine-tune, which may use our names or any of llava-hf's."""
    return name_from_original(name) if name.startswith(TOWER) else name_from_hf(name)


def name_from_tower(name: str) -> str | None:
    """Our name of a tensor in a tower's folder: a vision tower, or a complete CLIP or SigLIP, whose text is skipped."""
    if _TEXT_HALF.match(name):
        return None
    return name_from_original(TOWER + name.removeprefix("vision_model."))
