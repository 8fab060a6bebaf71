"""How many tokens a row of a data file takes in a model, images included: the same as in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llava.image.geometry import Size
from llava.model.checkpoint_reader import open_checkpoint
from llava.train.dataset.samples import InstructionData


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
