"""The data of a stage: what is trained on, what it is evaluated on, and what can be known of it before it is used.

A template that does not fit the tokenizer, a missing image and turns that disagree with their images are found here,
before any weight is read, and damaged images among those of some samples.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import find_template
from llava.errors import ContextTooLong, UsageError
from llava.image.geometry import Tiling
from llava.image.pixels import ImageProcessor
from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.image_slots import write_sample
from llava.train.dataset.order import count_all_words, count_all_words_by_modality
from llava.train.dataset.samples import InstructionData, JsonSamples
from llava.train.recipe import JsonData, TuningStage

VISION_PARTS = ("vision_tower", "projector", "image_newline")
_MOST_FAULTS = 5
# Samples whose images are decoded before training; more would take minutes.
_MOST_DECODED = 200


@dataclass(frozen=True)
class Encoding:
    """What a stage's samples are encoded with: a checkpoint's tokenizer, tiling, image processor, template, context."""

    tokenizer: Any
    tiling: Tiling
    processor: ImageProcessor
    template: str
    context_tokens: int
    has_start_end: bool = False  # ``mm_use_im_start_end`` of the checkpoint


class ChosenSamples:
    """Some samples of another source, by their numbers there."""

    def __init__(self, source: Any, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def sample(self, index: int) -> Any:
        """Sample number ``index`` of those chosen."""
        return self.source.sample(self.indices[index])

    def record(self, index: int) -> Any:
        """Record number ``index`` of those chosen."""
        return self.source.record(self.indices[index])

    def measure(self, index: int) -> Any:
        """The sizes of the images of record number ``index`` of those chosen."""
        return self.source.measure(self.indices[index])

    def sizes(self) -> Any:
        """Words and images of the records chosen."""
        return self.source.sizes().take(self.indices)


class TuningData(InstructionData):
    """``InstructionData`` with the lengths by which the samples are grouped."""

    @property
    def lengths(self) -> list[int]:
        """Words, and 128 for images, as in both originals."""
        source: Any = self.source
        return count_all_words(source.sizes())

    @property
    def modality_lengths(self) -> list[int]:
        """Words, negative for samples without an image."""
        source: Any = self.source
        return count_all_words_by_modality(source.sizes())

    def encode_text(
        self, turns: Sequence[tuple[str, str]], num_positions: Sequence[int], template: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``InstructionData`` does; a sample that is too long is told what a recipe can do about it."""
        try:
            return super().encode_text(turns, num_positions, template)
        except ContextTooLong as error:
            remedy = "Where max_length is lower than the model's own context, raise it; or set too_long: cut, or skip."
            raise ContextTooLong(error.num_tokens, error.limit_tokens, remedy) from error


def read_samples(stage: TuningStage, data: JsonData | None = None) -> JsonSamples:
    """The stage's samples, or those of another of its data files. Raises UsageError for a missing or invalid file."""
    data = stage.data if data is None else data
    if data is None:
        raise UsageError(f"Stage '{stage.name}' has no data: name a file with --data, or data.json in the recipe.")
    return JsonSamples(data.files, data.images, stage.seed)


def split_samples(stage: TuningStage) -> tuple[Any, Any]:
    """The sources of what is trained on and of what is evaluated on; None for the second where there is none.

    A share that is held out is drawn at random, always the same for the same seed.

    Raises:
        UsageError: a file is missing or invalid, or the share leaves nothing on one side.
    """
    samples = read_samples(stage)
    if stage.eval_data is not None:
        return samples, read_samples(stage, stage.eval_data)
    if not stage.held_out:
        return samples, None
    num_held = round(len(samples) * stage.held_out)
    if not 0 < num_held < len(samples):
        raise UsageError(
            f"Stage '{stage.name}': held_out is {stage.held_out}, which is {num_held} of {len(samples)} samples; at "
            "least one has to be held out, and one left."
        )
    order = random.Random(stage.seed).sample(range(len(samples)), len(samples))
    return ChosenSamples(samples, sorted(order[num_held:])), ChosenSamples(samples, sorted(order[:num_held]))


def build_dataset(stage: TuningStage, source: Any, encoding: Encoding) -> TuningData:
    """The samples of a source as the model's inputs."""
    longest = min(stage.max_length or encoding.context_tokens, encoding.context_tokens)
    templates = (stage.data.templates if stage.data else ()) or (encoding.template,)
    return TuningData(
        source,
        encoding.tokenizer,
        encoding.tiling,
        encoding.processor,
        templates,
        longest,
        rule="1.5" if stage.compatible_with == "llava-1.5" else "next",
        has_start_end=stage.vision.mm_use_im_start_end or encoding.has_start_end,
        max_length=longest if stage.too_long == "cut" else None,
        skip_limit=count_skippable(stage, source),
        skips_long=stage.too_long == "skip",
    )


def build_collator(tokenizer: Any, tile_px: int | None = None) -> InstructionCollator:
    """Makes batches padded on the tokenizer's side; with ``tile_px`` text-only rows get a blank image."""
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return InstructionCollator(pad_id, tokenizer.padding_side, dummy_tile_px=tile_px)


def count_skippable(stage: TuningStage, source: Any) -> int:
    """How many samples may be left out: the recipe's ``max_skipped``, or else what a mixture's ``failures`` allow."""
    return stage.max_skipped or getattr(getattr(source, "records", None), "num_failures", 0)


def check_data(stage: TuningStage, data: TuningData) -> None:
    """Raises UsageError for samples that are found to be unusable, and for a wrong template.

    Images are decoded of so many samples as take seconds, drawn at random where there are more. Up to ``max_skipped``
    unusable samples are left to the training, which counts and names them.
    """
    source: Any = data.source
    folder = source.image_folder
    has_images = any(source.record(index).images for index in range(len(data)))
    if not has_images and not any(name not in VISION_PARTS for name in stage.train):
        raise UsageError(
            f"Stage '{stage.name}' trains {', '.join(stage.train)}, which samples without an image do not reach, and "
            "none of its samples has one. Add language_model to train, or name other data."
        )
    if has_images and not source.allows_outside and not folder.is_dir():
        fault = "is a file" if folder.exists() else "does not exist"
        raise UsageError(f"Stage '{stage.name}': the image folder '{folder}' {fault}. Name it with --images.")
    faults: dict[int, str] = {}
    skippable = count_skippable(stage, source)
    drawn = random.Random(stage.seed).sample(range(len(data)), min(len(data), _MOST_DECODED))
    for index, fault in chain(data.find_faults(), data.find_damage(sorted(drawn))):
        faults.setdefault(index, f"Sample {data.name(index)}: {fault}")
        if len(faults) > skippable + _MOST_FAULTS:
            break
    if len(faults) > skippable:
        listed = " ".join(list(faults.values())[:_MOST_FAULTS])
        more = " There are more." if len(faults) > _MOST_FAULTS else ""
        raise UsageError(
            f"Stage '{stage.name}' has samples that cannot be trained on. {listed}{more} Correct or remove them, or "
            "raise max_skipped."
        )
    if drawn and not data.any_has_target(drawn):
        limit = f"{data.max_length or data.limit_tokens:,} positions (max_length, or the model's context)"
        raise UsageError(
            f"Stage '{stage.name}': none of {len(drawn):,} samples has an answer within {limit}, images included. "
            "Raise max_length, or give the model smaller images and shorter texts."
        )
    for template in data.templates:
        check_template(template, data.tokenizer)
        check_answers_survive(data, template)


def check_template(name: str, tokenizer: Any) -> None:
    """Raises UsageError if the template's stop or turn tokens are no tokens of this tokenizer.

    With such a template every sample would teach the pieces of a marker in place of the end of an answer, which the
    originals mask in silence ("tokenization mismatch").
    """
    template = find_template(name)
    markers = {mark.strip() for mark in (template.sep, template.sep2) if mark and mark.strip().startswith("<")}
    for mark in sorted(markers):
        ids = tokenizer(mark, add_special_tokens=False).input_ids
        if len(ids) != 1 and not all(i in tokenizer.all_special_ids for i in ids):
            raise UsageError(
                f"The template {name} ends turns with {mark}, which is {len(ids)} tokens in this tokenizer, not one: "
                f"it belongs to another language model, whose end is {tokenizer.eos_token}. Choose another template."
            )


def check_answers_survive(data: TuningData, template: str) -> None:
    """Renders the first sample that this template can express and decodes its targets, which have to be its answers.

    Raises:
        UsageError: they are not; both texts are in the message.
    """
    source: Any = data.source
    uncut = copy.copy(data)
    uncut.max_length = None
    for index in range(min(len(data), 20)):
        record = source.record(index)
        try:
            written = write_sample(record.turns, len(record.images), find_template(template), data.rule)
            ids, labels = uncut.encode_text(record.turns, [1] * len(record.images), template)
        except ValueError:
            continue  # found by ``find_faults``, or too long
        targets = [token for token in labels.tolist() if token not in (IGNORE_INDEX, IMAGE_TOKEN_INDEX)]
        if not targets or data.tokenizer.unk_token_id in ids.tolist():
            continue
        text = data.tokenizer.decode(targets)
        answers = [said for _, said in written.messages[1::2]]  # without a leading one
        lost = [answer for answer in answers if _squeeze(answer) not in _squeeze(text)]
        if lost:
            raise UsageError(
                f"The template {template} does not fit this tokenizer: the answer {lost[0][:200]!r} of sample "
                f"{record.id} is decoded as {text[:200]!r}. Choose another template."
            )
        return


def _squeeze(text: str) -> str:
    return "".join(text.replace(DEFAULT_IMAGE_TOKEN, "").split())
