"""How many tokens a row of a data file takes in a model, images included: the same as in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.data.long_work import LongWork
from llava.data.rows import Rows
from llava.image.geometry import Size
from llava.model.checkpoint_reader import open_checkpoint
from llava.train.dataset.samples import InstructionData, RecordSamples


class RowMeter:
    """Measures turns with images for one checkpoint; no weight is read.

    Raises:
        CheckpointError, UsageError: there is no such checkpoint, or it is incomplete.
    """

    def __init__(self, model: str) -> None:
        opened = open_checkpoint(model)
        source: Any = ()
        self.template, self.context_tokens = opened.template, opened.spec.context_tokens
        self.data = InstructionData(
            source, opened.load_tokenizer(), opened.spec.tiling, opened.load_processor(), (opened.template,), None
        )

    def __call__(self, turns: Sequence[tuple[str, str]], sizes: Sequence[Size]) -> tuple[int, int | None]:
        """Tokens of the sample with its images, and the model's context. Raises BadSample, UsageError."""
        positions = [plan.num_positions for plan in self.data.plan(sizes)]
        ids, _ = self.data.encode_text(turns, positions, self.template)
        return len(ids) - len(positions) + sum(positions), self.context_tokens


def count_tokens(records: Rows, images: Path, model: str) -> dict[str, int]:
    """Tokens of all records in a checkpoint, images included, by source. Images are measured by their headers.

    Raises:
        CheckpointError, UsageError: there is no such checkpoint.
        BadImage: an image is missing or not one.
    """
    meter = RowMeter(model)
    samples = RecordSamples(records, images)
    counts: dict[str, int] = {}
    with LongWork("Counting tokens", len(records), " rows") as work:
        for index in range(len(records)):
            record = records.record(index)
            num, _ = meter(record.turns, samples.measure(index))
            counts[record.source] = counts.get(record.source, 0) + num
            work.move_to(index)
    return counts
