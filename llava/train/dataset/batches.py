"""Batches: rows of unequal length become one tensor, and their images one list.

``InstructionCollator`` is what our trainers use; ``OriginalCollator`` makes the batches of both originals from the
items of their datasets, for code written against them. In both, the mask covers each row's own length, so an ``<unk>``
in a text stays where the original masks it out, because it pads with the same id.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py,
DataCollatorForSupervisedDataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import UsageError

_SIDES = ("right", "left")


class InstructionCollator:
    """Makes batches of the items of ``InstructionData``.

    A batch has ``input_ids`` [B, L], padded with ``pad_id``, ``labels``, padded with IGNORE_INDEX, a bool
    ``attention_mask``, and, if there are images, ``images``, ``image_sizes`` and ``modalities`` ("image", or "text" for
    a blank image) as lists over all rows in order.

    Args:
        padding_side: "right" or "left", the tokenizer's.
        dummy_tile_px: the side of the blank image, in px, that a text-only row gets, so that every batch passes the
            vision tower: sharded training hangs where one process skips it. The model adds it to no text. None: no
            blank images.
        has_names: whether a batch also has ``ids`` and ``sources``, the items' ``id`` and ``source`` in order. They are
            no arguments of a model.

    Raises:
        UsageError: on construction, for an unknown side.
    """

    def __init__(
        self, pad_id: int, padding_side: str = "right", *, dummy_tile_px: int | None = None, has_names: bool = False
    ) -> None:
        if padding_side not in _SIDES:
            raise UsageError(f"The padding side is {padding_side!r}; it can be {' or '.join(_SIDES)}.")
        self.pad_id, self.padding_side = pad_id, padding_side
        self.dummy_tile_px, self.has_names = dummy_tile_px, has_names

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = pad_rows(items, self.pad_id, self.padding_side)
        images: list[torch.Tensor] = []
        sizes: list[tuple[int, int]] = []
        modalities: list[str] = []
        for item in items:
            images += item["images"]
            sizes += item["image_sizes"]
            modalities += ["image"] * len(item["images"])
            if self.dummy_tile_px is not None and not bool((item["input_ids"] == IMAGE_TOKEN_INDEX).any()):
                images.append(torch.zeros(1, 3, self.dummy_tile_px, self.dummy_tile_px))
                sizes.append((self.dummy_tile_px, self.dummy_tile_px))
                modalities.append("text")
        if images:
            batch |= {"images": images, "image_sizes": sizes, "modalities": modalities}
        if self.has_names:
            batch |= {"ids": [item["id"] for item in items], "sources": [item["source"] for item in items]}
        return batch


class OriginalCollator:
    """Makes the originals' batches of the items of their datasets: ``input_ids``, ``labels`` and maybe ``image``.

    A row is cut at ``tokenizer.model_max_length``. With the layout "1.5", ``image`` is a tensor [3, S, S] or
    [T, 3, S, S], rows are padded on the right, and ``images`` is one tensor if all have the same shape, else a list.
    With "next", ``image`` is a list of (pixels, (width, height), modality); rows are padded on the tokenizer's side,
    with 0 if it has no pad token; ``images`` is a list, beside ``image_sizes`` and ``modalities``. Images are in the
    batch only if the first item has one, as in the originals; then each item must have one.

    Raises:
        UsageError: the layout is unknown (on construction), or, on a call, an item lacks its image or the tokenizer its
            pad token.
    """

    def __init__(self, tokenizer: Any, layout: str = "1.5") -> None:
        if layout not in ("1.5", "next"):
            raise UsageError(f"There is no batch layout '{layout}'; there are: 1.5, next.")
        self.tokenizer, self.layout = tokenizer, layout

    def __call__(self, instances: Sequence[dict[str, Any]]) -> dict[str, Any]:
        pad_id, longest = self.tokenizer.pad_token_id, self.tokenizer.model_max_length
        is_next = self.layout == "next"
        if pad_id is None and not is_next:
            raise UsageError("The tokenizer has no pad token, so no batch can be padded: set tokenizer.pad_token.")
        side = getattr(self.tokenizer, "padding_side", "right") if is_next else "right"
        rows = [{key: each[key][:longest] for key in ("input_ids", "labels")} for each in instances]
        batch: dict[str, Any] = pad_rows(rows, 0 if pad_id is None else pad_id, side)
        if "image" not in instances[0]:
            return batch
        lacking = [i for i, each in enumerate(instances) if "image" not in each]
        if lacking:
            raise UsageError(f"Item {lacking[0]} of a batch has no image, but the first one has: a batch needs both.")
        images = [each["image"] for each in instances]
        if is_next:
            flat = [image for row in images for image in row]
            batch["image_sizes"], batch["modalities"] = [image[1] for image in flat], [image[2] for image in flat]
            batch["images"] = [image[0] for image in flat]
        else:
            is_even = all(image is not None and image.shape == images[0].shape for image in images)
            batch["images"] = torch.stack(images) if is_even else images
        return batch


def pad_rows(rows: Sequence[dict[str, Any]], pad_id: int, padding_side: str = "right") -> dict[str, torch.Tensor]:
    """``input_ids`` and ``labels`` (int64) of the rows as [B, L], and the bool ``attention_mask`` of their lengths.

    Raises UsageError if there are no rows.
    """
    if not rows:
        raise UsageError("A batch needs at least one row.")

    def pad(values: list[torch.Tensor], padding: float) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(
            values, batch_first=True, padding_value=padding, padding_side=padding_side
        )

    ids = [row["input_ids"].long() for row in rows]
    return {
        "input_ids": pad(ids, pad_id),
        "labels": pad([row["labels"].long() for row in rows], IGNORE_INDEX),
        "attention_mask": pad([torch.ones_like(row, dtype=torch.bool) for row in ids], False),
    }
