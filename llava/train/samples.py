"""Training samples: images and a conversation become token ids, labels and tiles.

They go through the same tile plan, the same preprocessing and the same ``render`` as a question at inference, so there
is no second tokenization to disagree with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch.utils.data import Dataset

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX
from llava.conversation import Conversation, find_template
from llava.errors import BadImage, UsageError
from llava.image.geometry import Size, TilePlan, Tiling, plan_tiles
from llava.image.pixels import ImageProcessor, make_pixels
from llava.image.source import Limits, load_image
from llava.prompt import render


@dataclass(frozen=True)
class Sample:
    """One row of LLaVA's data: images, and turns ``{"from": "human" | "gpt", "value": text}``."""

    images: tuple[Image.Image, ...]
    conversations: list[dict[str, str]]


class SampleSource(Protocol):
    """Samples by number, from 0 on; the same number always gives the same sample."""

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """Sample number ``index``. Raises BadImage for one whose image cannot be read."""
        ...


class JsonSamples:
    """LLaVA's JSON list: ``id``, optional ``image`` (a path below the image folder, or a list), ``conversations``.

    Raises UsageError for a file that is missing or not such a list.
    """

    def __init__(self, file: str | Path, image_folder: str | Path) -> None:
        self.image_folder = Path(image_folder)
        try:
            self.rows: list[dict[str, Any]] = json.loads(Path(file).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UsageError(f"The data file '{file}' does not exist.") from error
        except OSError as error:
            raise UsageError(f"The data file '{file}' cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise UsageError(f"The data file '{file}' is not valid JSON: {error}.") from error
        if not isinstance(self.rows, list) or not self.rows:
            raise UsageError(f"The data file '{file}' must hold a non-empty JSON list of samples.")
        for number, row in enumerate(self.rows):
            self._check(row, f"Sample {row.get('id', number) if isinstance(row, dict) else number} of '{file}'")
        if any(row.get("image") for row in self.rows) and not self.image_folder.is_dir():
            raise UsageError(f"The image folder '{image_folder}' of '{file}' does not exist.")

    @staticmethod
    def _check(row: Any, where: str) -> None:
        if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
            raise UsageError(f"{where} has no list 'conversations'.")
        turns = row["conversations"]
        for turn in turns:
            if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
                raise UsageError(f"{where}: each turn needs 'from' and the text 'value', but one is {str(turn)[:60]}.")
        if not all(isinstance(name, str) for name in _list_images(row)):
            raise UsageError(f"{where}: image is {str(row['image'])[:60]}; it must be a path or a list of paths.")
        if turns and turns[0].get("from") == "gpt":  # the original drops a leading answer
            turns = row["conversations"] = turns[1:]
        speakers = [turn.get("from") for turn in turns]
        if not speakers or speakers != ["human", "gpt"] * (len(speakers) // 2):
            raise UsageError(f"{where}: turns must alternate human, gpt and end with gpt, but are {speakers}.")
        num_slots = sum(turn["value"].count(DEFAULT_IMAGE_TOKEN) for turn in turns)
        if num_slots != (num_images := len(_list_images(row))):
            raise UsageError(f"{where} has {num_slots} <image> in its text, but {num_images} images; each needs one.")

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int) -> Sample:
        """Row number ``index`` with its images, upright and RGB.

        Raises BadImage for an image that is missing, damaged or outside the image folder.
        """
        row = self.rows[index]
        images = []
        for name in _list_images(row):
            path = self.image_folder / name
            if not path.resolve().is_relative_to(self.image_folder.resolve()):
                raise BadImage(
                    f"Sample {row.get('id', index)} names the image '{name}', which lies outside {self.image_folder}."
                )
            images.append(load_image(path, Limits(draws_damaged=False)).image)
        return Sample(tuple(images), row["conversations"])


def _list_images(row: dict[str, Any]) -> list[Any]:
    """The paths of a row's images, as the file has them."""
    names = row.get("image") or []
    return names if isinstance(names, list) else [names]


def as_conversation(turns: Sequence[dict[str, str]], template: str) -> Conversation:
    """The turns in a template. A turn with one ``<image>`` gets it moved to its front, as in the original."""
    conversation = find_template(template).without_examples()
    for i, turn in enumerate(turns):
        text = turn["value"]
        if text.count(DEFAULT_IMAGE_TOKEN) == 1:
            text = f"{DEFAULT_IMAGE_TOKEN}\n{text.replace(DEFAULT_IMAGE_TOKEN, '').strip()}"
        conversation.append_message(conversation.roles[i % 2], text)
    return conversation


class InstructionData(Dataset[dict[str, Any]]):
    """Samples as model inputs: ``input_ids`` and ``labels`` [L] with -200 for each image, ``images``, ``image_sizes``.

    ``images`` has float32 pixels [tiles, 3, S, S] for each image, and ``image_sizes`` its (width, height) in pixels.
    Labels are IGNORE_INDEX for every token that the loss mask excludes.

    Args:
        templates: one is drawn at random for each sample, always the same one for the same index.
        limit_tokens: the model's context; a longer sample raises ContextTooLong.
    """

    def __init__(
        self,
        source: SampleSource,
        tokenizer: Any,
        tiling: Tiling,
        processor: ImageProcessor,
        templates: Sequence[str],
        limit_tokens: int,
    ) -> None:
        self.source, self.tokenizer, self.tiling, self.processor = source, tokenizer, tiling, processor
        self.templates, self.limit_tokens = tuple(templates), limit_tokens

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.encode(self.source.sample(index), random.Random(index).choice(self.templates))

    def encode(self, sample: Sample, template: str) -> dict[str, Any]:
        """The model's inputs for one sample in that template."""
        sizes = [Size(*image.size) for image in sample.images]
        plans = [plan_tiles(size, self.tiling) for size in sizes]
        positions = [plan.num_positions for plan in plans]
        conversation = as_conversation(sample.conversations, template)
        prompt = render(conversation, self.tokenizer, positions, limit_tokens=self.limit_tokens, supervise=True)
        assert prompt.labels is not None
        return {
            "input_ids": torch.tensor(prompt.input_ids),
            "labels": torch.tensor(prompt.labels),
            "images": self.make_tiles(sample, plans),
            "image_sizes": [tuple(size) for size in sizes],
        }

    def make_tiles(self, sample: Sample, plans: Sequence[TilePlan]) -> list[torch.Tensor]:
        """The pixels of each image's tiles, in the order of its plan, float32 [plan.num_tiles, 3, S, S]."""
        return [make_pixels(image, plan, self.processor) for image, plan in zip(sample.images, plans, strict=True)]


class InstructionCollator:
    """Makes batches: pads ids on the right with ``pad_id`` and labels with IGNORE_INDEX, and joins the image lists."""

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
        return batch
