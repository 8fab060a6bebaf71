"""Training samples: a picture and a conversation become ids, labels and tiles.

Samples come from LLaVA's JSON with an image folder, or are drawn. Both go through the same tile plan, the same pixels
and the same ``render`` as a question at inference does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX
from llava.conversation import Conversation, conv_templates
from llava.errors import BadImage, UsageError
from llava.image.geometry import Size, Tiling, plan_tiles
from llava.image.pixels import ImageProcessor, make_pixels
from llava.image.source import Limits, load_picture
from llava.prompt import render
from llava.synth.conversations import as_conversations, choose_turns
from llava.synth.labels import label_tiles
from llava.train.pictures import PictureMix


class Sample(NamedTuple):
    """One row of LLaVA's data: pictures, and turns ``{"from": "human" | "gpt", "value": text}``.

    ``labels`` are the dense labels [tiles, patches, 7] of a drawn picture, where a stage asks for them.
    """

    images: tuple[Image.Image, ...]
    conversations: list[dict[str, str]]
    labels: np.ndarray | None = None


class SampleSource(Protocol):
    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample: ...


class DrawnSamples:
    """Conversations about drawn pictures; number i is always the same. ``label_tiling`` adds dense labels."""

    def __init__(
        self, mix: PictureMix, num_samples: int, num_turns: int, caption_rate: float, label_tiling: Tiling | None = None
    ) -> None:
        self.mix, self.num_samples = mix, num_samples
        self.num_turns, self.caption_rate, self.label_tiling = num_turns, caption_rate, label_tiling

    def __len__(self) -> int:
        return self.num_samples

    def sample(self, index: int) -> Sample:
        scene = self.mix.draw(index)
        turns = choose_turns(random.Random(f"{self.mix.seed}:turns:{index}"), scene, self.num_turns, self.caption_rate)
        image = scene.canvas.image
        labels = None
        if self.label_tiling is not None:
            tiling = self.label_tiling
            labels = label_tiles(scene.canvas, plan_tiles(Size(*image.size), tiling), tiling.tile_px, tiling.patch_px)
        return Sample((image,), as_conversations(turns), labels)


class JsonSamples:
    """LLaVA's JSON list: ``id``, optional ``image`` (a path below the image folder, or a list), ``conversations``."""

    def __init__(self, file: str | Path, image_folder: str | Path) -> None:
        self.image_folder = Path(image_folder)
        try:
            self.rows: list[dict[str, Any]] = json.loads(Path(file).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UsageError(f"The data file '{file}' does not exist.") from error
        except ValueError as error:
            raise UsageError(f"The data file '{file}' is not valid JSON: {error}.") from error
        if not isinstance(self.rows, list) or not self.rows:
            raise UsageError(f"The data file '{file}' must hold a non-empty JSON list of samples.")
        for number, row in enumerate(self.rows):
            self._check(row, f"Sample {row.get('id', number) if isinstance(row, dict) else number} of '{file}'")

    @staticmethod
    def _check(row: Any, where: str) -> None:
        if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
            raise UsageError(f"{where} has no list 'conversations'.")
        turns = row["conversations"]
        if turns and turns[0].get("from") == "gpt":  # the original drops a leading answer
            turns = row["conversations"] = turns[1:]
        speakers = [turn.get("from") for turn in turns]
        if not speakers or speakers != ["human", "gpt"] * (len(speakers) // 2):
            raise UsageError(f"{where}: turns must alternate human, gpt and end with gpt, but are {speakers}.")

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int) -> Sample:
        row = self.rows[index]
        names = row.get("image") or []
        names = [names] if isinstance(names, str) else names
        images = []
        for name in names:
            path = self.image_folder / name
            if not path.resolve().is_relative_to(self.image_folder.resolve()):
                raise BadImage(
                    f"Sample {row.get('id', index)} names the picture '{name}', which lies outside {self.image_folder}."
                )
            images.append(load_picture(path, Limits(draws_damaged=False)).image)
        return Sample(tuple(images), row["conversations"])


def as_conversation(turns: Sequence[dict[str, str]], template: str) -> Conversation:
    """The turns in a template; a single picture's marker moves to the front of its turn, as the original does it."""
    conversation = conv_templates[template].copy()
    conversation.messages = []
    for i, turn in enumerate(turns):
        text = turn["value"]
        if text.count(DEFAULT_IMAGE_TOKEN) == 1:
            text = f"{DEFAULT_IMAGE_TOKEN}\n{text.replace(DEFAULT_IMAGE_TOKEN, '').strip()}"
        conversation.append_message(conversation.roles[i % 2], text)
    return conversation


class InstructionData(Dataset[dict[str, Any]]):
    """Samples as model inputs: ``input_ids`` and ``labels`` with -200 per picture, tiles, and picture sizes.

    ``templates``: one is drawn for each sample. ``with_pixels=False`` gives dense labels [T, side, side, 7] in place
    of pixels, for the stage that trains the decoder before there is a tower.
    """

    def __init__(
        self,
        source: SampleSource,
        tokenizer: Any,
        tiling: Tiling,
        processor: ImageProcessor,
        templates: Sequence[str],
        limit_tokens: int,
        with_pixels: bool = True,
    ) -> None:
        self.source, self.tokenizer, self.tiling, self.processor = source, tokenizer, tiling, processor
        self.templates, self.limit_tokens, self.with_pixels = templates, limit_tokens, with_pixels

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.source.sample(index)
        sizes = [Size(*image.size) for image in sample.images]
        positions = [plan_tiles(size, self.tiling).num_positions for size in sizes]
        conversation = as_conversation(sample.conversations, random.Random(index).choice(list(self.templates)))
        prompt = render(conversation, self.tokenizer, positions, limit_tokens=self.limit_tokens, supervise=True)
        assert prompt.labels is not None
        if self.with_pixels:
            tiles = [make_pixels(image, self.tiling, self.processor) for image in sample.images]
        else:
            assert sample.labels is not None
            side = self.tiling.tile_px // self.tiling.patch_px
            tiles = [torch.from_numpy(sample.labels.astype(np.int64)).unflatten(1, (side, side))]
        item = {
            "input_ids": torch.tensor(prompt.input_ids),
            "labels": torch.tensor(prompt.labels),
            "images": tiles,
            "image_sizes": [tuple(size) for size in sizes],
        }
        if self.with_pixels and sample.labels is not None:
            item["tile_labels"] = torch.from_numpy(sample.labels.astype(np.int64))
        return item


class InstructionCollator:
    """Pads ids on the right with ``pad_id`` and labels with IGNORE_INDEX; pictures of the batch become one list."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        pad = torch.nn.utils.rnn.pad_sequence
        ids = [item["input_ids"] for item in items]
        batch: dict[str, Any] = {
            "input_ids": pad(ids, batch_first=True, padding_value=self.pad_id),
            "labels": pad([item["labels"] for item in items], batch_first=True, padding_value=IGNORE_INDEX),
            "attention_mask": pad([torch.ones_like(x, dtype=torch.bool) for x in ids], batch_first=True),
        }
        images = [image for item in items for image in item["images"]]
        if images:
            batch["images"] = images
            batch["image_sizes"] = [size for item in items for size in item["image_sizes"]]
        if "tile_labels" in items[0]:
            batch["tile_labels"] = torch.cat([item["tile_labels"] for item in items])
        return batch
