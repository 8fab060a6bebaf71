"""The original's dataset: rows of its data files become items with ``image``, in the layout of either repository.

``llava.train.train`` has it under the name that research code subclasses. ``preprocess_multimodal`` and ``preprocess``
are handed in for each item, so that replaced ones take effect; reading, tiles, and what happens to a row that cannot be
trained on are this package's own.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py (LazySupervisedDataset).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from llava import conversation as templates
from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.data.readers import read_records
from llava.data.records import Record, parse_record
from llava.errors import BadSample
from llava.image.geometry import Size, TilePlan, Tiling, parse_pinpoints, plan_images
from llava.image.pixels import make_pixels
from llava.image.source import load_image
from llava.train.dataset.samples import LIMITS, RecordSamples, Sample, count_fitting
from llava.train.dataset.stage_data import TuningData
from llava.train.original.encoding import Sources, choose_rule

Place = Callable[[Sources, Any], Sources]
Encode = Callable[..., dict[str, Any]]


class OriginalRows:
    """The rows of a dataset's ``list_data_dict``, whatever research code puts there, as records.

    Args:
        read: the rows as they were read from files, each with its number and its file.
    """

    def __init__(self, read: Sequence[tuple[Any, int, str]]) -> None:
        self.rows = [row for row, _, _ in read]
        self._read = tuple(read)  # kept, so that no other row gets the id of one of these
        self._places = {id(row): (number, file) for row, number, file in read}

    def __len__(self) -> int:
        return len(self.rows)

    def record(self, index: int) -> Record:
        """Record number ``index``. Raises UsageError for an invalid row."""
        number, file = self._places.get(id(self.rows[index]), (index, "list_data_dict"))
        return parse_record(self.rows[index], number, file)


def count_row_words(row: Any) -> int:
    """Words of all turns of a row, which may be of any kind that has ``conversations``."""
    return sum(len(str(turn.get("value", turn.get("content", ""))).split()) for turn in row["conversations"])


def has_image(row: Any) -> bool:
    """Whether a row has an image, or a video, as research code may have."""
    return row.get("image") is not None or row.get("video") is not None


class OriginalSamples(TuningData):
    """Items ``input_ids``, ``labels`` [L], ``image`` and ``id``, from the original's three arguments.

    In LLaVA-1.5's layout ``image`` is [3, S, S], zeros for a row without one; in LLaVA-NeXT's, which AnyRes needs, it
    is a list of (pixels, (width, height), "image" or "text").

    A subclass whose constructor reads its rows itself may call this one without arguments, or not at all, and set the
    attributes.

    Attributes:
        list_data_dict: the rows as in their files; may be replaced.
        tokenizer, data_args: the original's own.
    """

    def __init__(self, data_path: str | None = None, tokenizer: Any = None, data_args: Any = None) -> None:
        if data_path is None:
            return
        self.tokenizer, self.data_args = tokenizer, data_args
        records = read_records(data_path)
        self._records = OriginalRows([(records.row(i), *records.locate(i)) for i in range(len(records))])
        self._prepare()

    def _prepare(self) -> None:
        """Sets what ``TuningData`` needs, from the three attributes."""
        data_args, rule = self.data_args, choose_rule(self.data_args)
        super().__init__(
            RecordSamples(self._records, data_args.image_folder or "", allows_outside=True),
            self.tokenizer,
            _find_tiling(data_args),
            getattr(data_args, "image_processor", None),  # type: ignore[arg-type]
            [name for name, each in templates.conv_templates.items() if each is templates.default_conversation][:1],
            None,
            rule=rule,
            has_start_end=bool(getattr(data_args, "mm_use_im_start_end", False)),
            max_length=self.tokenizer.model_max_length,
            # LLaVA-NeXT takes the next row in place of one that fails, LLaVA-1.5 stops.
            skip_limit=len(self._records) if rule == "next" else 0,
        )
        self.is_listed = rule == "next" or self.tiling.is_anyres

    def __getattr__(self, name: str) -> Any:
        """An attribute that a constructor of a subclass has left to this one."""
        if not {"tokenizer", "data_args", "_records"} <= vars(self).keys() or "source" in vars(self):
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'", name=name, obj=self)
        self._prepare()
        return getattr(self, name)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def list_data_dict(self) -> list[Any]:
        """The rows as in their files."""
        return self._records.rows

    @list_data_dict.setter
    def list_data_dict(self, rows: list[Any]) -> None:
        """Replaces the rows."""
        if "_records" not in vars(self):
            self._records = OriginalRows([])
        self._records.rows = rows
        self.faults = torch.zeros(len(rows), dtype=torch.uint8).share_memory_()

    @property
    def lengths(self) -> list[int]:
        """Words of each row, and 128 for an image."""
        return [count_row_words(row) + 128 * has_image(row) for row in self.list_data_dict]

    @property
    def modality_lengths(self) -> list[int]:
        """Words of each row, negative for one without an image, except with ``early_mix_text``."""
        is_mixed = getattr(self.data_args, "early_mix_text", False)
        return [count_row_words(row) * (1 if is_mixed or has_image(row) else -1) for row in self.list_data_dict]

    def make_row(self, index: int, place: Place, encode: Encode) -> dict[str, Any]:
        """Item number ``index``; without a target, if all of them are cut off. Raises BadImage, UsageError."""
        source: Any = self.source
        row, sample = self.list_data_dict[index], source.sample(index)
        conversations: Sources = [copy.deepcopy(row["conversations"])]
        if sample.images:
            conversations = place(conversations, self.data_args)
        encoded = encode(conversations, self.tokenizer, has_image=bool(sample.images))
        ids, labels = encoded["input_ids"][0], encoded["labels"][0]
        item = {"input_ids": ids, "labels": labels, "id": row.get("id", index), "source": sample.source}
        self._check_slots(ids, len(sample.images))
        plans = self.plan([Size(*image.size) for image in sample.images])
        end = count_fitting(ids.tolist(), [plan.num_positions for plan in plans], self.tokenizer.model_max_length)
        if not bool((labels[:end] != IGNORE_INDEX).any()):
            item["labels"] = torch.full_like(labels, IGNORE_INDEX)
        if sample.images:
            item["image"] = self._list_images(ids, sample, plans)
        elif getattr(self.data_args, "is_multimodal", False):
            item["image"] = self._make_blank()
        return item

    def process_image(self, image_file: str, overwrite_image_aspect_ratio: str | None = None) -> tuple[Any, Any, str]:
        """The pixels of an image, its (width, height) and "image", as LLaVA-NeXT's dataset makes them.

        With AnyRes the pixels are [T, 3, S, S], otherwise [3, S, S]. Raises BadImage.
        """
        source: Any = self.source
        image = load_image(source.find_image(image_file), LIMITS).image
        aspect = overwrite_image_aspect_ratio
        tiling = self.tiling if aspect is None else replace(self.tiling, aspect=aspect)
        (plan,) = plan_images([Size(*image.size)], tiling)
        tiles = make_pixels(image, plan, self.processor)
        return (tiles if tiling.is_anyres else tiles[0]), image.size, "image"

    def _check_slots(self, ids: torch.Tensor, num_images: int) -> None:
        num_slots = int((ids == IMAGE_TOKEN_INDEX).sum())
        if num_slots != num_images:
            raise BadSample(f"it has {num_slots} {DEFAULT_IMAGE_TOKEN} in its text, but {num_images} images.")
        if num_images > 1 and not self.is_listed:
            raise BadSample(f"it has {num_images} images, and LLaVA-1.5 has one for each row; LLaVA-NeXT has several.")

    def _list_images(self, ids: torch.Tensor, sample: Sample, plans: Sequence[TilePlan]) -> Any:
        """The pixels of those images whose slots the collator does not cut off."""
        kept = range(int((ids[: self.tokenizer.model_max_length] == IMAGE_TOKEN_INDEX).sum()))
        if not kept:
            return self._make_blank()
        tiles = self.make_tiles(sample, plans)
        if not self.is_listed:
            return tiles[0][0]
        # A single tile has no axis of tiles, except where the model merges by AnyRes.
        has_axis = self.tiling.is_anyres and len(sample.images) == 1
        return [(tiles[i] if has_axis else tiles[i][0], sample.images[i].size, "image") for i in kept]

    def _make_blank(self) -> Any:
        side = self.tiling.tile_px
        if not self.is_listed:
            return torch.zeros(3, side, side)
        return [(torch.zeros(1, 3, side, side), (side, side), "text")]


def _find_tiling(data_args: Any) -> Tiling:
    """The tiling of the model that ``data_args`` was prepared for, with the settings that it has now."""
    processor = getattr(data_args, "image_processor", None)
    tiling = getattr(data_args, "tiling", None)
    if tiling is None:
        tile_px = 336 if processor is None else int(processor.crop_size["height"])
        squashes = processor is not None and "shortest_edge" not in processor.size
        tiling = Tiling(tile_px=tile_px, patch_px=min(14, tile_px), squashes=squashes)
    aspect = data_args.image_aspect_ratio
    if not aspect.startswith("anyres"):
        return replace(tiling, aspect=aspect, pinpoints=())
    pinpoints = parse_pinpoints(data_args.image_grid_pinpoints or tiling.pinpoints, tiling.tile_px)
    return replace(tiling, aspect=aspect, pinpoints=pinpoints)
