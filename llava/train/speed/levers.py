"""What makes a stage faster or smaller by its recipe: packing, cached tower features, checkpointing, compiling.

None of them changes what is learned. ``check_levers`` refuses settings that contradict each other, ``pack_samples`` and
``set_levers`` apply the others to the data and to the model.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_flash_attn_2_available

from llava.errors import LlavaError, UsageError
from llava.model import packed_attention
from llava.model.image_adapter import find_image_adapter
from llava.model.vision import VisionTower
from llava.train.dataset.length_index import LengthIndex
from llava.train.dataset.packing import PackedData
from llava.train.dataset.samples import InstructionData
from llava.train.devices.parallel import count_processes, read_rank, share_objects
from llava.train.recipe import TuningStage
from llava.train.speed.layers import check_parts, checkpoint_layers, compile_layers
from llava.train.speed.tower_cache import TowerCache

# Records whose images are measured to estimate how many tiles all records have.
_NUM_MEASURED = 200
# The share of the free disk that the cache of features may take.
_SHARE_OF_DISK = 0.5


def check_levers(stage: TuningStage) -> None:
    """Raises UsageError for settings of a stage that contradict each other."""
    where = f"Stage '{stage.name}'"
    check_parts(stage.gradient_checkpointing, where)
    if stage.cache_features and "vision_tower" in stage.train:
        raise UsageError(
            f"{where}: cache_features keeps the features of a frozen tower, but vision_tower is in train. Leave one "
            "of them out."
        )
    if stage.packing and stage.group_by != "none":
        raise UsageError(
            f"{where}: packing fills every row, so group_by: {stage.group_by} has nothing to group. Leave one out."
        )


def pack_samples(stage: TuningStage, data: InstructionData, index_file: Path) -> PackedData:
    """The stage's samples in rows of its ``max_length``, or else of the model's context.

    Each process reads the headers of its share of the images, or finds the lengths in ``index_file``; all of them get
    the same rows, also where one of them cannot read a file. A sample that cannot be trained on gets a row of its own,
    because another sample that is not known yet will be taken in its place.
    """
    assert data.limit_tokens is not None, "a stage's samples have a limit"
    index, counted = LengthIndex(index_file, data), list[int]()
    for number in range(read_rank(), len(data), count_processes()):
        try:
            counted.append(index.count_positions(number))
        except (LlavaError, OSError):
            counted.append(data.limit_tokens)
    shares, lengths = share_objects((counted, index.list_new())), [0] * len(data)
    for rank, (share, new) in enumerate(shares):
        lengths[rank :: len(shares)] = share
        index.add(new)
    if read_rank() == 0:
        index.save()
    return PackedData(data, lengths, data.limit_tokens, stage.seed)


def set_levers(model: Any, stage: TuningStage, data: InstructionData, cache_folder: Path) -> str:
    """Prepares a model as the stage says; returns a line about the feature cache, "" without one.

    Args:
        model: a LLaVA model, with or without PEFT's wrapper.
        data: the stage's samples, unpacked.
    """
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    if stage.gradient_checkpointing:
        checkpoint_layers(model, stage.gradient_checkpointing)
    tower, line = model.get_vision_tower(), ""
    if stage.cache_features and isinstance(tower, VisionTower):
        if tower.position_range is not None:
            raise UsageError(
                f"Stage '{stage.name}': cache_features keeps features tile by tile, but this vision tower sees the "
                "tiles of an image together. Leave it out."
            )
        cache_folder.mkdir(parents=True, exist_ok=True)
        cache = TowerCache(cache_folder, 0)
        cache.limit_bytes = int(_SHARE_OF_DISK * (shutil.disk_usage(cache_folder).free + cache.count_bytes()))
        model.tower_cache = cache
        line = cache.describe(tower, _estimate_tiles(data), tower.dtype)
    if stage.compile:
        if find_image_adapter(model) is not None:
            raise UsageError(
                f"Stage '{stage.name}': compile takes layers that do the same at all positions, but the model has an "
                "image adapter. Leave it out."
            )
        compile_layers(model)
    return line


def choose_attention(model: Any, device: torch.device, mixed_precision: str, packs: bool = False) -> None:
    """Gives the decoder the fastest attention that is installed: flash-attention, or SDPA, for packed rows by sample.

    Flash-attention computes in 16 bits on CUDA. Another attention than SDPA was somebody's choice, and stays.
    """
    config = (model.get_base_model() if hasattr(model, "get_base_model") else model).config
    if config._attn_implementation != "sdpa":
        return
    if device.type == "cuda" and mixed_precision in ("bf16", "fp16") and is_flash_attn_2_available():
        config._attn_implementation = "flash_attention_2"
    elif packs:
        config._attn_implementation = packed_attention.register()


def _estimate_tiles(data: InstructionData) -> int:
    """The tiles of all images, from those of some records."""
    chosen = random.Random(0).sample(range(len(data)), min(len(data), _NUM_MEASURED))
    source: Any = data.source
    num_tiles = 0
    for index in chosen:
        try:
            num_tiles += sum(plan.num_tiles for plan in data.plan(source.measure(index)))
        except LlavaError:
            continue
    return round(num_tiles * len(data) / max(1, len(chosen)))
