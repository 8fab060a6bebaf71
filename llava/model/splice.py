"""Inserts images among the text of a batch: each image slot of a prompt is replaced by its image's positions.

    ids         [ a  b  #1  c ]  [ d  #2 ]        an image slot (-200) is shown as # and its image
    positions   [ a  b  p p p p  c ]              p: positions of image 1
                [ d  q q  .  .  .  . ]            q: of image 2, dots: padding

This is the model's own path. The engine has no batches of prompts: it reserves the same positions in a request
(``engine.request.position_keys``) and fills them with the same rows.

Shape letters: B rows of the batch, L ids or positions of the longest row, S slots, K images, P positions of all images,
X ids that are text, C width of the language model.

Source: haotian-liu/LLaVA@c121f04 llava/model/llava_arch.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.model.image_adapter import find_after_image


class Merged(NamedTuple):
    """A batch for the decoder: embeddings, mask, position ids and labels of every position."""

    embeds_BLC: torch.Tensor
    mask_BL: torch.Tensor  # bool, False on padding
    position_ids_BL: torch.Tensor  # counted from 0 along the real positions of each sample; 0 on padding
    labels_BL: torch.Tensor | None
    after_image_BL: torch.Tensor  # bool, True at and after the first image of each sample; see ``image_adapter``


class _Layout(NamedTuple):
    """Where every id of a batch goes."""

    is_text_BL: torch.Tensor  # the ids that are kept and are no slots
    text_to_X: torch.Tensor  # the place of each of these in the flattened batch
    features_to_P: torch.Tensor  # the place of each position of each image there
    start_BL: torch.Tensor  # the place of each id's first position in its row, without padding on the left
    width: int  # L of the merged batch
    first_B: torch.Tensor  # the first real position of each row
    length_B: torch.Tensor  # the real positions of each row


def splice(
    ids_BL: torch.Tensor,
    mask_BL: torch.Tensor | None,
    labels_BL: torch.Tensor | None,
    features_PC: torch.Tensor,
    num_positions: Sequence[int],
    embed: Callable[[torch.Tensor], torch.Tensor],
    limit_positions: int | None = None,
    pads_left: bool = False,
    starts_BL: torch.Tensor | None = None,
) -> Merged:
    """The batch with each image slot of ``ids_BL`` replaced by its image's rows of ``features_PC``, and padded anew.

    Args:
        mask_BL: non-zero where ``ids_BL`` is kept, not necessarily contiguous; None keeps everything.
        features_PC, num_positions: all images' positions in order, and how many each image has.
        embed: turns the ids that are text, [X], into [X, C].
        limit_positions: cuts longer rows on the right.
        starts_BL: the ids at which the samples of a packed row start, see ``packed_row``; only position ids depend on
            it.

    Raises:
        UsageError: the number of images fits neither the slots nor the slots and text-only rows together.
    """
    layout = _lay_out(ids_BL, mask_BL, num_positions, limit_positions, pads_left)
    num_rows, width = len(ids_BL), layout.width
    text_XC = embed(ids_BL[layout.is_text_BL])
    flat = text_XC.new_zeros(num_rows * width + 1, text_XC.shape[1])
    flat.index_copy_(0, layout.text_to_X, text_XC)
    flat.index_copy_(0, layout.features_to_P, features_PC.to(text_XC))
    first_B1, end_B1 = layout.first_B[:, None], (layout.first_B + layout.length_B)[:, None]
    step_L = torch.arange(width, device=ids_BL.device)
    is_real = (step_L >= first_B1) & (step_L < end_B1)
    origin_BL = first_B1 if starts_BL is None else _find_origins(layout.start_BL, starts_BL, width)
    merged_labels = None
    if labels_BL is not None:
        merged_labels = labels_BL.new_full((num_rows * width + 1,), IGNORE_INDEX)
        merged_labels = merged_labels.index_copy(0, layout.text_to_X, labels_BL[layout.is_text_BL])[:-1].view(-1, width)
    is_image = is_real.new_zeros(num_rows * width + 1).index_fill(0, layout.features_to_P, True)[:-1].view(-1, width)
    return Merged(
        embeds_BLC=flat[:-1].view(num_rows, width, -1),
        mask_BL=is_real,
        position_ids_BL=(step_L - origin_BL) * is_real,
        labels_BL=merged_labels,
        after_image_BL=find_after_image(is_image, origin_BL.expand(num_rows, width)),
    )


def _lay_out(
    ids_BL: torch.Tensor,
    mask_BL: torch.Tensor | None,
    num_positions: Sequence[int],
    limit_positions: int | None,
    pads_left: bool,
) -> _Layout:
    is_kept = torch.ones_like(ids_BL, dtype=torch.bool) if mask_BL is None else mask_BL.bool()
    is_slot = is_kept & (ids_BL == IMAGE_TOKEN_INDEX)
    is_text = is_kept & ~is_slot
    device = ids_BL.device
    shown_S = torch.tensor(_shown_images(is_slot.sum(1).tolist(), len(num_positions)), device=device, dtype=torch.long)
    counts = torch.tensor(num_positions, device=device, dtype=torch.long)

    # How many positions each id takes, and where its first one goes.
    span_BL = is_kept.long()
    span_BL[is_slot] = counts[shown_S]
    start_BL = span_BL.cumsum(1) - span_BL
    length_B = span_BL.sum(1)
    if limit_positions is not None:
        length_B = length_B.clamp(max=limit_positions)
    width = int(length_B.max())
    first_B = width - length_B if pads_left else torch.zeros_like(length_B)
    row_start_B = torch.arange(len(ids_BL), device=device) * width + first_B

    # Each row is copied once, to its place in the flattened batch; a row without a place goes past the end.
    nowhere = len(ids_BL) * width
    text_to = (row_start_B[:, None] + start_BL)[is_text]
    slot_row = is_slot.nonzero()[:, 0]
    features_to = _place_features(
        counts, shown_S, start_BL[is_slot], row_start_B[slot_row], length_B[slot_row], nowhere
    )
    if limit_positions is not None:
        text_to = torch.where(start_BL[is_text] < limit_positions, text_to, nowhere)
    return _Layout(is_text, text_to, features_to, start_BL, width, first_B, length_B)


def _find_origins(start_BL: torch.Tensor, starts_BL: torch.Tensor, width: int) -> torch.Tensor:
    """The first position of the sample that each position of a packed row belongs to, [1, width]."""
    assert len(start_BL) == 1, "packed samples share one row"
    origin_BL = start_BL.new_zeros(1, width)
    first_S = start_BL[starts_BL]
    origin_BL[0, first_S] = first_S
    return origin_BL.cummax(1).values


def _place_features(
    counts_K: torch.Tensor,
    shown_S: torch.Tensor,
    start_S: torch.Tensor,
    row_start_S: torch.Tensor,
    row_length_S: torch.Tensor,
    nowhere: int,
) -> torch.Tensor:
    """Where each position of each image goes in the flattened batch, counted from the start of the image's slot.

    ``nowhere``: where positions go whose image has no slot, or which lie beyond the end of a cut row.
    """

    def of_its_slot(value_S: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(counts_K).index_copy(0, shown_S, value_S)[image_P]

    device = counts_K.device
    image_P = torch.repeat_interleave(torch.arange(len(counts_K), device=device), counts_K)
    first_P = (counts_K.cumsum(0) - counts_K)[image_P]
    place_P = of_its_slot(start_S) + torch.arange(len(image_P), device=device) - first_P
    return torch.where(place_P < of_its_slot(row_length_S), of_its_slot(row_start_S) + place_P, nowhere)


def _shown_images(slots_per_row: Sequence[int], num_images: int) -> list[int]:
    """The image of each slot, in batch order.

    Raises:
        UsageError: there are neither as many images as slots, nor as many as slots and text-only rows together.
    """
    num_slots, num_text_rows = sum(slots_per_row), slots_per_row.count(0)
    if num_images == num_slots:
        return list(range(num_slots))
    if num_images != num_slots + num_text_rows:
        raise UsageError(
            f"The prompts have {num_slots} image slots, but {num_images} images were given."
            + (f" {num_slots + num_text_rows} would also do: one for each row without a slot." if num_text_rows else "")
        )
    shown: list[int] = []
    image = 0
    for slots in slots_per_row:
        shown += range(image, image + slots)
        image += max(slots, 1)
    return shown


def move_padding_left(embeds_BLC: torch.Tensor, mask_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows and their mask with all padding moved to the left; the order of real positions stays."""
    is_real = mask_BL.bool()
    if bool((is_real[:, 1:] >= is_real[:, :-1]).all()):
        return embeds_BLC, mask_BL
    order_BL = is_real.long().argsort(dim=1, stable=True)
    moved_BLC = embeds_BLC.gather(1, order_BL[:, :, None].expand_as(embeds_BLC))
    return moved_BLC, mask_BL.gather(1, order_BL)
