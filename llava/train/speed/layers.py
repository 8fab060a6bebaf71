"""What is done to a model's layers before training: gradient checkpointing by part, and compiling.

Both leave the names of weights and modules as they are, and change a loss by rounding at most.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from llava.errors import UsageError
from llava.yaml_files import name_nearest

# The parts that have layers.
LAYERED = ("language_model", "vision_tower")


def check_parts(parts: Collection[str], where: str) -> None:
    """Raises UsageError if a part has no layers that can be recomputed; ``where`` begins the message."""
    for part in parts:
        if part not in LAYERED:
            raise UsageError(
                f"{where}: gradient_checkpointing names '{part}'; the parts with layers are {' and '.join(LAYERED)}."
                f"{name_nearest(part, LAYERED)}"
            )


def checkpoint_layers(model: Any, parts: Collection[str]) -> None:
    """Recomputes the activations of these parts' layers in the backward pass, and keeps those of all others.

    Args:
        model: a LLaVA model, without PEFT's wrapper.
        parts: of ``LAYERED``; an empty one switches gradient checkpointing off.

    Raises:
        UsageError: another part is named.
    """
    check_parts(parts, "The model")
    # Transformers 5.22 renamed the method, and warns of the old name.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    # It also lets embeddings require gradients, by hooks that only the reentrant kind needs: with a frozen decoder they
    # would add a graph, and a tower with hooks is not cached.
    model.disable_input_require_grads()
    tower = model.get_vision_tower()
    in_tower = set() if tower is None else {id(module) for module in tower.modules()}
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = LAYERED[id(module) in in_tower] in parts


def compile_layers(model: Any, **options: Any) -> None:
    """Compiles each layer of the decoder, and each block of the tower that runs, with torch.compile.

    The layers, and not the model: what lies around them depends on every batch's images. They are compiled for any
    number of positions, once for all layers of a part.

    Args:
        options: those of torch.compile.
    """
    layers: list[nn.Module] = list(model.get_model().layers)
    tower = model.get_vision_tower()
    if tower is not None and not tower.is_watched():
        layers += tower.blocks_run
    for layer in layers:
        layer.compile(**{"dynamic": True, **options})
