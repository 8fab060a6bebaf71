"""Training samples: images and a conversation become token ids, labels and tiles.

They go through the same tile plan, the same preprocessing and the same tokenization as a question at inference, so
there is no second one to disagree with. Labels come from the spans that are recorded while a conversation is rendered:
an empty answer, ``ASSISTANT:`` or ``</s>`` in a text does not mask the sample, as in the originals.

A sample that cannot be trained on is an error that names it, or, up to a limit, it is left out: the next one is taken
in its place, and ``InstructionData`` tells which ones they were. So batches keep their size, and no process of a
sharded run ever waits for another.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch.utils.data import Dataset

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import find_template
from llava.data.image_files import find_image
from llava.data.readers import read_records
from llava.data.records import Record, RecordSource, StoredImage
from llava.data.rows import Rows, RowSizes, measure_records
from llava.errors import BadImage, BadSample, ContextTooLong, UsageError
from llava.image.geometry import Size, TilePlan, Tiling, plan_images, plan_whole
from llava.image.pixels import ImageProcessor, make_pixels
from llava.image.source import Limits, load_image, measure_image
from llava.prompt import render_sample
from llava.text import fit_line, write_line
from llava.train.dataset.image_slots import write_sample

# A damaged image teaches its damage, and an image of a mix that somebody else published may be any file.
LIMITS = Limits(draws_damaged=False, explains=False)


@dataclass(frozen=True)
class Sample:
    """A record with its images: what one row of a batch is made of. ``turns`` are those of ``Record``."""

    images: tuple[Image.Image, ...]
    turns: tuple[tuple[str, str], ...]
    id: str = ""
    source: str = ""


class SampleSource(Protocol):
    """Samples by number, from 0 on; the same number always gives the same sample."""

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """Sample number ``index``. Raises BadImage for one whose image cannot be read."""
        ...


class RecordSamples:
    """Records with their images, which are files or lie in the data file.

    Args:
        image_folder: the folder that image names are relative to; "" is the current one, and names may be any path.
        allows_outside: whether names may lead out of that folder, as in the originals. Symbolic links in it may in any
            case: the owner of the folder made them.
    """

    def __init__(self, records: RecordSource, image_folder: str | Path = "", *, allows_outside: bool = False) -> None:
        self.records, self.image_folder = records, Path(image_folder)
        self.allows_outside = allows_outside or image_folder == ""

    def __len__(self) -> int:
        return len(self.records)

    def record(self, index: int) -> Record:
        """Record number ``index``."""
        return self.records.record(index)

    def digest(self) -> str:
        """A checksum of all records, where their source has one."""
        return self.records.digest() if isinstance(self.records, Rows) else ""

    def sample(self, index: int) -> Sample:
        """Record number ``index`` with its images, upright and RGB.

        Raises BadImage for an image that is missing, damaged or outside the image folder.
        """
        record = self.records.record(index)
        images = tuple(load_image(self.open_image(image), LIMITS).image for image in record.images)
        return Sample(images, record.turns, record.id, record.source)

    def measure(self, index: int) -> list[Size]:
        """The sizes of the record's images, px, upright, without decoding them. Raises BadImage as ``sample`` does."""
        return [measure_image(self.open_image(image), LIMITS) for image in self.records.record(index).images]

    def open_image(self, image: str | StoredImage) -> Path | bytes:
        """The file of an image, or the bytes of one that the data file holds. Raises BadImage as ``sample`` does."""
        return self.find_image(image) if isinstance(image, str) else image.read()

    def find_image(self, name: str) -> Path:
        """The file of an image. Raises BadImage for one that is missing or outside the image folder."""
        return find_image(self.image_folder, name, allows_outside=self.allows_outside)

    def sizes(self) -> RowSizes:
        """Words and images of all records; no record is read where the data files have an index."""
        return measure_records(self.records)


class JsonSamples(RecordSamples):
    """The samples of data files, see ``llava.data.readers.read_records``, with their images.

    Raises UsageError for a file that is missing or invalid, or has an invalid row.
    """

    def __init__(
        self,
        file: str | Path | Sequence[str | Path],
        image_folder: str | Path = "",
        seed: int = 0,
        *,
        allows_outside: bool = False,
    ) -> None:
        super().__init__(read_records(file, seed), image_folder, allows_outside=allows_outside)


class Fault(IntEnum):
    """Why a sample was left out, or OK."""

    OK = 0
    UNUSABLE = 1  # its image, its turns or its length
    CUT = 2  # all its targets lie beyond ``max_length``
    LONG = 3  # it is longer than the limit, and such samples are to be skipped


class InstructionData(Dataset[dict[str, Any]]):
    """Samples as model inputs: ``input_ids`` and ``labels`` [L] with -200 for each image, ``images``, ``image_sizes``.

    ``images`` has float32 pixels [tiles, 3, S, S] for each image, and ``image_sizes`` its (width, height) in pixels.
    Labels are IGNORE_INDEX for every token that the loss mask excludes. ``id`` and ``source`` are the record's.

    Args:
        templates: one is drawn at random for each sample, always the same one for the same index.
        limit_tokens: the model's context; a longer sample cannot be trained on.
        rule: where ``<image>`` is put, one of ``image_slots.RULES``. "next" also gives each of several images one
            tile, padded, as LLaVA-NeXT does.
        has_start_end: ``mm_use_im_start_end`` of the model.
        max_length: longer samples are cut on the right at this many positions, images included, as both originals and
            their models do together. A sample without a target before that is left out. None cuts nothing.
        skip_limit: how many unusable samples are left out, and named on stderr, before one is an error. 0: the first.
        skips_long: leaves out samples that are longer than ``limit_tokens``; they are named, and not unusable.
        keeps_cut: keeps samples without a target, as the originals do; they are still counted.

    Attributes:
        faults: a ``Fault`` for each sample, in memory that the worker processes of a data loader share.
    """

    def __init__(
        self,
        source: SampleSource,
        tokenizer: Any,
        tiling: Tiling,
        processor: ImageProcessor,
        templates: Sequence[str],
        limit_tokens: int | None,
        *,
        rule: str = "1.5",
        has_start_end: bool = False,
        max_length: int | None = None,
        skip_limit: int = 0,
        skips_long: bool = False,
        keeps_cut: bool = False,
    ) -> None:
        self.source, self.tokenizer, self.tiling, self.processor = source, tokenizer, tiling, processor
        self.templates, self.limit_tokens = tuple(templates), limit_tokens
        self.rule, self.has_start_end, self.max_length = rule, has_start_end, max_length
        self.skip_limit, self.skips_long, self.keeps_cut = skip_limit, skips_long, keeps_cut
        self.faults = torch.zeros(len(source), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Sample number ``index``, or the first one after it that is not left out. Raises BadSample and IndexError."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no sample {index}; there are {len(self)}.")
        for step in range(len(self)):
            i = (index + step) % len(self)
            if self.faults[i] in (Fault.UNUSABLE, Fault.LONG) or (self.faults[i] == Fault.CUT and not self.keeps_cut):
                continue
            try:
                item = self.make_item(i)
            except (BadImage, ContextTooLong, UsageError) as error:
                is_long = self.skips_long and isinstance(error, ContextTooLong)
                self._note(i, Fault.LONG if is_long else Fault.UNUSABLE, str(error))
                continue
            if bool((item["labels"] != IGNORE_INDEX).any()):
                return item
            self._note(i, Fault.CUT, f"all its answers lie beyond max_length, {self.max_length} positions.")
            if self.keeps_cut:
                return item
        raise BadSample("No sample is left to train on: all are left out. Raise max_length, or mend the data.")

    def make_item(self, index: int) -> dict[str, Any]:
        """Sample number ``index`` itself, with ``labels`` that may be without a target. Raises as ``encode``."""
        return self.encode(self.source.sample(index), self.choose_template(index))

    def choose_template(self, index: int) -> str:
        """The template of sample number ``index``."""
        return random.Random(index).choice(self.templates)

    def encode(self, sample: Sample, template: str) -> dict[str, Any]:
        """The model's inputs for one sample in that template. ``labels`` can be without a target if it is cut.

        Raises:
            UsageError: the sample cannot be written in this template, or has nothing to learn.
            ContextTooLong: it is longer than ``limit_tokens``.
        """
        sizes = [Size(*image.size) for image in sample.images]
        plans = self.plan(sizes)
        ids, labels = self.encode_text(sample.turns, [plan.num_positions for plan in plans], template)
        num_shown = int((ids == IMAGE_TOKEN_INDEX).sum())  # an image whose slot is cut off is not encoded
        return {
            "input_ids": ids,
            "labels": labels,
            "images": self.make_tiles(sample, plans)[:num_shown],
            "image_sizes": [tuple(size) for size in sizes[:num_shown]],
            "id": sample.id,
            "source": sample.source,
        }

    def plan(self, sizes: Sequence[Size]) -> list[TilePlan]:
        """The tile plans of all images of one sample."""
        if self.rule == "next" and len(sizes) > 1:
            padded = replace(self.tiling, aspect="pad")
            return [plan_whole(size, padded) for size in sizes]
        return plan_images(sizes, self.tiling)

    def encode_text(
        self, turns: Sequence[tuple[str, str]], num_positions: Sequence[int], template: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and labels [L] of a sample whose images take ``num_positions`` each. Raises as ``encode`` does."""
        conversation = write_sample(
            turns, len(num_positions), find_template(template), self.rule, has_start_end=self.has_start_end
        )
        limit = self.limit_tokens if self.max_length is None else None
        prompt = render_sample(conversation, self.tokenizer, num_positions, limit_tokens=limit)
        assert prompt.labels is not None
        end = len(prompt.input_ids)
        if self.max_length is not None:
            end = count_fitting(prompt.input_ids, num_positions, self.max_length)
            used = min(prompt.num_positions, self.max_length)
            if self.limit_tokens is not None and used > self.limit_tokens:
                raise ContextTooLong(used, self.limit_tokens, "Lower max_length to that.")
        return torch.tensor(prompt.input_ids[:end]), torch.tensor(prompt.labels[:end])

    def make_tiles(self, sample: Sample, plans: Sequence[TilePlan]) -> list[torch.Tensor]:
        """The pixels of each image's tiles, in the order of its plan, float32 [plan.num_tiles, 3, S, S]."""
        return [make_pixels(image, plan, self.processor) for image, plan in zip(sample.images, plans, strict=True)]

    def count_positions(self, index: int) -> int:
        """The positions of sample number ``index`` in a batch, from the headers of its images.

        Needs a source with ``record`` and ``measure``, as RecordSamples. Raises as ``encode`` does, and BadImage.
        """
        source: Any = self.source
        positions = [plan.num_positions for plan in self.plan(source.measure(index))]
        ids, _ = self.encode_text(source.record(index).turns, positions, self.choose_template(index))
        num_slots = int((ids == IMAGE_TOKEN_INDEX).sum())
        return len(ids) - num_slots + sum(positions[:num_slots])

    def find_faults(self) -> Iterator[tuple[int, str]]:
        """(index, fault) of each sample that is known to be unusable without tokenizing its text or opening its images.

        Turns and images that disagree, a template that cannot express the turns, a missing image: run it before
        training. Needs a source with ``record`` and ``find_image``, as RecordSamples.
        """
        source: Any = self.source
        for index in range(len(self)):
            record = source.record(index)
            template = find_template(self.choose_template(index))
            try:
                write_sample(record.turns, len(record.images), template, self.rule)
                for image in record.images:
                    if isinstance(image, str):
                        source.find_image(image)
            except (BadImage, UsageError) as error:
                yield index, str(error)

    def find_damage(self, indices: Sequence[int]) -> Iterator[tuple[int, str]]:
        """(index, fault) of those of these samples whose images cannot be decoded, or that are too long."""
        for index in indices:
            try:
                sample = self.source.sample(index)
                positions = [plan.num_positions for plan in self.plan([Size(*image.size) for image in sample.images])]
                self.encode_text(sample.turns, positions, self.choose_template(index))
            except (BadImage, ContextTooLong, UsageError) as error:
                if not (self.skips_long and isinstance(error, ContextTooLong)):
                    yield index, str(error)

    def any_has_target(self, indices: Sequence[int]) -> bool:
        """Whether one of these samples has a target before ``max_length``; by the headers of its images."""
        source: Any = self.source
        for index in indices:
            try:
                positions = [plan.num_positions for plan in self.plan(source.measure(index))]
                _, labels = self.encode_text(source.record(index).turns, positions, self.choose_template(index))
            except (BadImage, ContextTooLong, UsageError):
                continue
            if bool((labels != IGNORE_INDEX).any()):
                return True
        return False

    def list_left_out(self, fault: Fault) -> list[str]:
        """The ids of the samples that were met so far and have this fault, in order."""
        return [self._name(int(index))[0] for index in (self.faults == fault).nonzero()[:, 0]]

    def name(self, index: int) -> str:
        """Sample number ``index`` in messages: its id, and the row that it is, in one line."""
        id, place = self._name(index)
        return fit_line(id) + (f" ({fit_line(place, 500)})" if place else "")

    def _note(self, index: int, fault: Fault, reason: str) -> None:
        """Counts the sample and names it on stderr. Raises BadSample for more unusable ones than ``skip_limit``."""
        if self.faults[index] == fault:
            return
        name = self.name(index)
        if fault is Fault.UNUSABLE and int((self.faults == Fault.UNUSABLE).sum()) >= self.skip_limit:
            others = f" {self.skip_limit} others were left out already." if self.skip_limit else ""
            raise BadSample(f"Sample {name} cannot be trained on: {reason}{others}")
        self.faults[index] = fault
        write_line(f"llava: Sample {name} is left out: {fit_line(reason, 1000)}")

    def _name(self, index: int) -> tuple[str, str]:
        """Id and place of the record."""
        if not hasattr(self.source, "record"):
            return str(index), ""
        record = self.source.record(index)
        return record.id, record.place


def count_fitting(ids: Sequence[int], num_positions: Sequence[int], max_length: int) -> int:
    """How many ids, from the first on, fit into ``max_length`` positions; an image that fits in part does not."""
    images = iter(num_positions)
    used = 0
    for i, token in enumerate(ids):
        used += next(images) if token == IMAGE_TOKEN_INDEX else 1
        if used > max_length:
            return i
    return len(ids)
