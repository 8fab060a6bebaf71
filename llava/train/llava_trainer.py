"""Front door: the original's names in ``llava.train.llava_trainer``, of both repositories.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/llava_trainer.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from llava.train.dataset.order import (
    LengthGroupedSampler,
    get_length_grouped_indices,
    get_length_grouped_indices_auto_single,
    get_modality_length_grouped_indices,
    get_modality_length_grouped_indices_auto,
    get_variable_length_grouped_indices,
    split_to_even_chunks,
)
from llava.train.original import state_dicts
from llava.train.trainer import LLaVATrainer

__all__ = [
    "LLaVATrainer",
    "LengthGroupedSampler",
    "get_length_grouped_indices",
    "get_length_grouped_indices_auto_single",
    "get_mm_adapter_state_maybe_zero_3",
    "get_modality_length_grouped_indices",
    "get_modality_length_grouped_indices_auto",
    "get_variable_length_grouped_indices",
    "maybe_zero_3",
    "split_to_even_chunks",
]


def maybe_zero_3(param: Any, ignore_status: bool = False, name: str | None = None) -> torch.Tensor:
    """A copy of the parameter on the CPU, gathered if ZeRO-3 has split it up."""
    return state_dicts.gather(param)


def get_mm_adapter_state_maybe_zero_3(
    named_params: Iterable[tuple[str, Any]], keys_to_match: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Copies of the tensors whose names contain one of the keys."""
    return state_dicts.gather_matching(named_params, keys_to_match)
