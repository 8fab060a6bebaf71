"""How much memory the KV cache takes, and what a tile costs beside a prompt's position."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from llava.errors import UsageError

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

# Of what the machine can spare; the rest is for activations, pictures and whatever else runs.
SHARE = 0.5
# As many whole contexts are enough by default: more would only keep older answers known.
MOST_CONTEXTS = 16


class Memory(NamedTuple):
    num_blocks: int
    tile_cost: int  # positions of a prompt that take as long as a tile


def plan_memory(loaded: LoadedModel, block_tokens: int, memory_bytes: int | None) -> Memory:
    """Blocks for ``memory_bytes``, or for half of what the machine can spare but no more than 16 contexts.

    Raises UsageError if not even one block fits, or if it is more than there is.
    """
    model = loaded.model
    of_position = count_position_bytes(model)
    most = -(-MOST_CONTEXTS * loaded.context_tokens // block_tokens)
    if memory_bytes is None:
        num_blocks = min(most, int(SHARE * find_spare_bytes(model.device)) // (of_position * block_tokens))
    else:
        # Memory of a CPU is only taken where something is written: too much would be missed in the middle of an answer.
        there_is = find_total_bytes(model.device)
        if memory_bytes > there_is:
            raise UsageError(
                f"The cache gets {memory_bytes} bytes, but {model.device} has {there_is} in all. Give it less memory."
            )
        num_blocks = memory_bytes // (of_position * block_tokens)
    if num_blocks < 1:
        raise UsageError(
            f"The cache gets {memory_bytes or 0} bytes, but one block of {block_tokens} positions takes "
            f"{of_position * block_tokens}. Give it more memory."
        )
    return Memory(num_blocks, _tile_cost(model))


def count_position_bytes(model: Any) -> int:
    """What the keys and values of one position take."""
    layers = model.get_model().layers
    head_dim: int = layers[0].self_attn.head_dim
    return 2 * len(layers) * int(model.config.num_key_value_heads) * head_dim * int(model.dtype.itemsize)


def check_beams(model: Any, num_beams: int, num_positions: int) -> None:
    """Raises UsageError where a search of so many beams over a prompt cannot fit into memory.

    ``generate`` copies the keys and values of all beams with every token. Without this the system ends the process.
    """
    of_beam = 2 * count_position_bytes(model) * (num_positions + 1)
    spare = find_spare_bytes(model.device)
    if num_beams > 1 and num_beams * of_beam > spare:
        raise UsageError(
            f"{num_beams} beams take {num_beams * of_beam / 1e9:.1f} GB for keys and values, but {model.device} has "
            f"{spare / 1e9:.1f} GB to spare. Search with at most {max(1, spare // of_beam)}."
        )


def _tile_cost(model: torch.nn.Module) -> int:
    """From the numbers of multiplications; attention is left out on both sides."""
    tower = model.get_vision_tower()  # type: ignore[operator]
    if tower is None:
        return 1
    blocks = tower.vision_tower.vision_model.encoder.layers[: tower.num_blocks_run]
    of_tile = sum(weight.numel() for weight in blocks.parameters()) * (tower.num_patches + 1)
    of_position = sum(weight.numel() for weight in model.get_model().layers.parameters())  # type: ignore[operator]
    return max(1, round(of_tile / max(1, of_position)))


def find_spare_bytes(device: torch.device) -> int:
    """Memory that is free on the device, as far as the machine tells; 2 GiB where it does not."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    spare = 2 * 2**30
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            spare = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            spare = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    try:
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:
            spare = min(spare, max(0, _find_limit() - int(file.read())))
    except (OSError, ValueError):
        pass
    return spare


def find_total_bytes(device: torch.device) -> int:
    """All memory of the device, whoever has it now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # not on this system
        total = sys.maxsize
    try:
        return min(total, _find_limit())
    except (OSError, ValueError):
        return total


def _find_limit() -> int:
    """What a container is given, maybe less than the machine has. Raises OSError or ValueError if no limit is."""
    with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
        return int(file.read())
