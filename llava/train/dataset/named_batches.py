"""Batches that know which samples they are made of, so that a fault can name them.

The names travel from the data loader's workers to the trainer, which takes them out before the model sees a batch. So
does a fault of a sample: an exception of a worker process would arrive with that process's traceback in its text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from llava.constants import IGNORE_INDEX
from llava.errors import LlavaError, UsageError

_NAMES, _NOTES, _FAULT = "_sample_names", "_sample_notes", "_sample_fault"


@dataclass(frozen=True)
class SampleNote:
    """A sample's source, "" where it has none, and how many targets it has in a batch."""

    source: str
    num_targets: int


@dataclass(frozen=True)
class _Fault:
    """The error of a sample, as text and exit code: not every exception survives the way between processes."""

    message: str
    exit_code: int


class NamedSamples(Dataset[Any]):
    """A dataset whose items come as (name, item): the item's ``id``, or else its index."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        try:
            item = self.samples[index]
        except LlavaError as error:
            return str(index), _Fault(str(error), error.exit_code)
        samples = item if isinstance(item, list) else [item]  # a packed row is a list of samples
        names = [sample.get("id") if isinstance(sample, Mapping) else None for sample in samples]
        return ", ".join(str(index if name is None else name) for name in names), item


class NamedCollator:
    """Another collator for items of ``NamedSamples``: its batches also have the names."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[tuple[str, Any]]) -> Any:
        for _, item in items:
            if isinstance(item, _Fault):
                return {_FAULT: item}
        batch = self.collate([item for _, item in items])
        if isinstance(batch, dict):
            batch[_NAMES] = [name for name, _ in items]
            # A packed row is a list of samples.
            samples = [sample for _, item in items for sample in (item if isinstance(item, list) else [item])]
            if all(isinstance(sample, Mapping) and "labels" in sample for sample in samples):
                batch[_NOTES] = [_describe(sample) for sample in samples]
        return batch


def _describe(sample: Mapping[str, Any]) -> SampleNote:
    labels = torch.as_tensor(sample["labels"])[1:]  # nothing comes before the first token that could predict it
    return SampleNote(str(sample.get("source", "")), int((labels != IGNORE_INDEX).sum()))


def take_notes(batch: Any) -> tuple[SampleNote, ...]:
    """The notes about a batch's samples, row by row, which it then no longer has."""
    return tuple(batch.pop(_NOTES, ())) if isinstance(batch, dict) else ()


def take_names(batch: Any) -> tuple[str, ...]:
    """The names of a batch's samples, which it then no longer has. Raises LlavaError for a sample with a fault."""
    if not isinstance(batch, dict):
        return ()
    fault = batch.get(_FAULT)
    if fault is not None:
        raise (UsageError if fault.exit_code == UsageError.exit_code else LlavaError)(fault.message)
    return tuple(batch.pop(_NAMES, ()))
