"""Several samples in one row, each with attention and positions of its own, as training packs them.

A packed row is told by its position ids, which count from 0 for every sample, as Transformers tells it. There is no
padding and no attention mask:

    ids          [ a  b  #1  c | d  e | f  #2 ]       an image slot (-200) is shown as # and its image
    positions    [ 0  1  2   3 | 0  1 | 0  1  ]       given
                 [ 0  1  2  3  4  5 | 0  1 | 0  1  2 ]    merged: image 1 takes three positions and image 2 two

Transformers makes block-diagonal masks of such position ids, for every attention but flash-attention, which takes the
lengths of the samples. ``packed_attention`` takes them too and needs no mask.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

from llava.errors import UsageError
from llava.model.splice import Merged


def find_starts(position_ids: torch.Tensor | None, attention_mask: torch.Tensor | None = None) -> torch.Tensor | None:
    """Where the samples of a packed row start, bool [1, L]; None if there is only one sample per row.

    Raises:
        UsageError: there is an attention mask, or there are other rows. Samples would see each other.
    """
    if position_ids is None or position_ids.shape[-1] < 2:
        return None
    starts_BL = position_ids == 0
    if attention_mask is not None:
        if attention_mask.shape != starts_BL.shape:  # a cache's mask, or one of the caller's own making
            return None
        starts_BL = starts_BL & attention_mask.bool()
    if not bool((starts_BL.sum(-1) > 1).any()):
        return None
    if attention_mask is not None:
        raise UsageError(
            "The position_ids restart, so that several samples share a row, but an attention_mask came as well. Such a "
            "row has no padding: leave attention_mask out."
        )
    if len(position_ids) > 1:
        raise UsageError(
            f"The position_ids restart, so that several samples share a row, but there are {len(position_ids)} rows. "
            "Put all samples into one row."
        )
    return starts_BL


def measure_samples(position_ids: torch.Tensor | None) -> dict[str, Any]:
    """The lengths of the samples in a packed row, as the keywords of Transformers' attention functions."""
    assert position_ids is not None, "a packed row has position ids"
    (starts_q, starts_k), (longest_q, longest_k) = prepare_fa_kwargs_from_position_ids(position_ids)
    return {
        "cu_seq_lens_q": starts_q,
        "cu_seq_lens_k": starts_k,
        "max_length_q": int(longest_q),
        "max_length_k": int(longest_k),
    }


def cut_samples(merged: Merged, limit_positions: int) -> Merged:
    """A packed row whose samples are cut on the right at so many positions each."""
    is_kept_L = merged.position_ids_BL[0] < limit_positions
    embeds_BLC, mask_BL, position_ids_BL = (tensor[:, is_kept_L] for tensor in merged[:3])
    labels_BL = None if merged.labels_BL is None else merged.labels_BL[:, is_kept_L]
    return Merged(embeds_BLC, mask_BL, position_ids_BL, labels_BL, merged.after_image_BL[:, is_kept_L])
