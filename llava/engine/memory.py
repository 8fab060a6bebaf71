"""How large the KV cache is, and what encoding a tile costs in prompt positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from llava.errors import UsageError
from llava.model.free_memory import find_free_bytes, find_total_bytes

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

# The share of free memory that the KV cache takes by default; the rest is for activations, images and other programs.
FREE_SHARE = 0.5
# By default the cache holds at most this many whole contexts: more would only keep older prefixes cached.
MAX_CONTEXTS = 16


class Memory(NamedTuple):
    """The KV cache's size in blocks, and how many prompt positions take as long as one tile."""

    num_blocks: int
    tile_cost: int


def plan_memory(loaded: LoadedModel, block_tokens: int, memory_bytes: int | None) -> Memory:
    """The blocks that fit into ``memory_bytes``; by default into half of the free memory, at most 16 contexts.

    Raises UsageError if not one block fits, or if the device has less memory in total.
    """
    model = loaded.model
    block_bytes = count_position_bytes(model) * block_tokens
    if memory_bytes is None:
        max_blocks = -(-MAX_CONTEXTS * loaded.context_tokens // block_tokens)
        num_blocks = min(max_blocks, int(FREE_SHARE * find_free_bytes(model.device)) // block_bytes)
    else:
        # A CPU allocates pages when they are first written: too large a cache would fail in the middle of an answer.
        total_bytes = find_total_bytes(model.device)
        if memory_bytes > total_bytes:
            raise UsageError(
                f"The KV cache gets {memory_bytes} bytes, but {model.device} has {total_bytes} in all. "
                "Give it less memory."
            )
        num_blocks = memory_bytes // block_bytes
    if num_blocks < 1:
        raise UsageError(
            f"The KV cache gets {memory_bytes or 0} bytes, but one block of {block_tokens} positions takes "
            f"{block_bytes}. Give it more memory."
        )
    return Memory(num_blocks, _estimate_tile_cost(model))


def count_position_bytes(model: Any) -> int:
    """How many bytes the keys and values of one position take in all layers."""
    layers = model.get_model().layers
    head_dim: int = layers[0].self_attn.head_dim
    return 2 * len(layers) * int(model.config.num_key_value_heads) * head_dim * int(model.dtype.itemsize)


def check_beams(model: Any, num_beams: int, num_positions: int) -> None:
    """Raises UsageError where beam search with so many beams over a prompt cannot fit into memory.

    ``generate`` copies the KV cache of all beams at every token; without this check the operating system kills the
    process.
    """
    beam_bytes = 2 * count_position_bytes(model) * (num_positions + 1)
    free_bytes = find_free_bytes(model.device)
    if num_beams > 1 and num_beams * beam_bytes > free_bytes:
        raise UsageError(
            f"{num_beams} beams take {num_beams * beam_bytes / 1e9:.1f} GB of KV cache, but {model.device} has "
            f"{free_bytes / 1e9:.1f} GB free. Search with at most {max(1, free_bytes // beam_bytes)}."
        )


def _estimate_tile_cost(model: torch.nn.Module) -> int:
    """The ratio of multiplications, matrices only: attention is left out on both sides."""
    tower = model.get_vision_tower()  # type: ignore[operator]
    if tower is None:
        return 1
    per_tile = sum(map(_count_multiplications, tower.blocks_run)) * (tower.num_patches + 1)
    per_position = _count_multiplications(model.get_model().layers)  # type: ignore[operator]
    return max(1, round(per_tile / max(1, per_position)))


def _count_multiplications(module: torch.nn.Module) -> int:
    """How many numbers the matrices in a module have, from the sizes of its linear layers.

    Counting parameters would count none or half of a quantized matrix, and an adapter's matrices beside its own.
    """
    inputs, outputs = (getattr(module, name, None) for name in ("in_features", "out_features"))
    if isinstance(inputs, int) and isinstance(outputs, int):
        return inputs * outputs
    return sum(_count_multiplications(child) for child in module.children())
