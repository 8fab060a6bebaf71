"""Which order a run's samples are drawn in: one of the originals', or ours, which keeps every sample."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset, RandomSampler

from llava.train.dataset import order
from llava.train.dataset.epoch_order import ShuffledSampler

_GROUPINGS = ("group_by_length", "group_by_modality_length", "group_by_modality_length_auto", "group_by_varlen")


def choose_sampler(samples: Any, args: Any, compatible_with: str) -> Any:
    """The sampler that these arguments ask for, over samples with ``lengths`` and ``modality_lengths``."""
    world_size = args.world_size * args.gradient_accumulation_steps
    chosen = {name: getattr(args, name, False) for name in _GROUPINGS}
    if compatible_with:
        return _build_original_sampler(samples, args, world_size, chosen, compatible_with)
    if not any(chosen.values()):
        return ShuffledSampler(len(samples), args.seed)
    by_modality = chosen["group_by_modality_length"] or chosen["group_by_modality_length_auto"]
    modalities = [length > 0 for length in samples.modality_lengths] if by_modality else None
    lengths = [abs(length) for length in samples.lengths]
    return order.GroupedSampler(args.train_batch_size, world_size, lengths, modalities, args.seed)


def _build_original_sampler(
    samples: Dataset[Any], args: Any, world_size: int, chosen: dict[str, bool], original: str
) -> Any:
    """The sampler of that original: it draws from torch's global state, as theirs does."""
    batch_size = args.train_batch_size
    plain = (
        order.get_length_grouped_indices_auto_single if original == "llava-next" else order.get_length_grouped_indices
    )
    lengths: Any = samples
    if chosen["group_by_length"]:
        return order.LengthGroupedSampler(batch_size, world_size, lengths.lengths, plain=plain)
    if chosen["group_by_modality_length"]:
        return order.LengthGroupedSampler(batch_size, world_size, lengths.modality_lengths, group_by_modality=True)
    if chosen["group_by_modality_length_auto"]:
        return order.LengthGroupedSampler(batch_size, world_size, lengths.modality_lengths, group_by_modality_auto=True)
    if chosen["group_by_varlen"]:
        accumulated = batch_size * args.gradient_accumulation_steps  # so LLaVA-NeXT counts accumulation twice
        return order.LengthGroupedSampler(accumulated, world_size, lengths.lengths, variable_length=True)
    return RandomSampler(lengths)
