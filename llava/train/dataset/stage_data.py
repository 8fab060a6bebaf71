"""The data of a stage: what is trained on, what it is evaluated on, and what can be known of it before it is used.

A template that does not fit the tokenizer, a missing image and turns that disagree with their images are found here,
before any weight is read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import find_template
from llava.errors import UsageError
from llava.image.geometry import Tiling
from llava.image.pixels import ImageProcessor
from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.order import count_all_words, count_all_words_by_modality
from llava.train.dataset.samples import InstructionData, JsonSamples
from llava.train.recipe import JsonData, TuningStage

_MOST_FAULTS = 5


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
        skip_limit=len(source) if stage.too_long == "skip" else stage.max_skipped,
    )


def build_collator(tokenizer: Any, tile_px: int | None = None) -> InstructionCollator:
    """Makes batches padded on the tokenizer's side; with ``tile_px`` text-only rows get a blank image."""
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return InstructionCollator(pad_id, tokenizer.padding_side, dummy_tile_px=tile_px)


def check_data(stage: TuningStage, data: TuningData) -> None:
    """Raises UsageError for samples that are known to be unusable without opening images, and for a wrong template.

    Up to ``max_skipped`` unusable samples are left to the training, which counts and names them.
    """
    faults = []
    for name, fault in data.find_faults():
        faults.append(f"Sample {name}: {fault}")
        if len(faults) > stage.max_skipped + _MOST_FAULTS:
            break
    if len(faults) > stage.max_skipped:
        listed = " ".join(faults[:_MOST_FAULTS])
        more = " There are more." if len(faults) > _MOST_FAULTS else ""
        raise UsageError(
            f"Stage '{stage.name}' has samples that cannot be trained on. {listed}{more} Correct or remove them, or "
            "raise max_skipped."
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
    for index in range(min(len(data), 20)):
        record = source.record(index)
        answers = [text for speaker, text in record.turns if speaker == "gpt"]
        try:
            ids, labels = data.encode_text(record.turns, [1] * len(record.images), template)
        except ValueError:
            continue  # found by ``find_faults``, or too long
        targets = [token for token in labels.tolist() if token not in (IGNORE_INDEX, IMAGE_TOKEN_INDEX)]
        if not targets or data.tokenizer.unk_token_id in ids.tolist():
            continue
        text = data.tokenizer.decode(targets)
        lost = [answer for answer in answers if _squeeze(answer) not in _squeeze(text)]
        if lost and len(ids) < (data.limit_tokens or len(ids) + 1):
            raise UsageError(
                f"The template {template} does not fit this tokenizer: the answer {lost[0][:200]!r} of sample "
                f"{record.id} is decoded as {text[:200]!r}. Choose another template."
            )
        return


def _squeeze(text: str) -> str:
    return "".join(text.split())
