"""What code from outside may replace in a model: how each replacement is noticed, and what then happens.

Research on token pruning and on towers replaces these, in this package as in the original. Every shortcut around a
module or a method asks here first, so a replacement always runs.

``forward``, ``generate``, ``encode_images``, ``prepare_inputs_labels_for_multimodal``, on a class or on one model
    ``find_replacement``: the method is defined in another module. ``forward`` and ``generate`` call the replacement,
    and the engine hands the model's questions to ``generate``.
an ``encode_images`` that returns fewer features of a tile than planned
    ``fit_plans``. An image with a single tile takes as many positions as it has features; several tiles that are laid
    out as one map are refused.
``llava_arch.unpad_image``
    ``has_replaced_unpad``. ``merge_with_replaced_unpad`` calls it with each map; the engine is not used.
``llava_arch.get_anyres_image_grid_shape``
    ``choose_grid``. Plans for tiles that a caller made have its grid; the engine is not used.
``llava_arch.build_vision_tower``, ``llava_arch.build_vision_projector``
    Models look them up when they are built, in the module that LOOKED_UP_IN names.
a vision tower of another class
    ``measure_tower`` and ``find_tower_dtype`` read only what the original's towers have; the engine calls the tower
    instead of its native layers.
a hook, another ``forward``, another module in a module's place
    ``has_hook``, ``has_global_hook``, ``is_replaced``, ``is_own``. The module is called instead of the shortcut around
    it: the whole tower (``is_tower_watched``) instead of the blocks that are needed, the convolution instead of a
    matrix product, the engine's PyTorch layers instead of its native ones, or ``generate`` instead of the engine.
    Transformers' own recorders are not counted as hooks.

Shape letters: T tiles, N features of one tile, P positions, C width of the language model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_modules

from llava.errors import UsageError
from llava.image.geometry import Size, TilePlan, Tiling, shrink_map, unpad
from llava.image.pixels import get_anyres_image_grid_shape
from llava.model.merge import merge
from llava.model.newline import end_rows
from llava.model.recorders import is_recorder

# The module in which models look up each function that an assignment in ``llava.model.llava_arch`` replaces.
LOOKED_UP_IN = {
    "build_vision_projector": "llava.model.llava",
    "build_vision_tower": "llava.model.llava",
    "get_anyres_image_grid_shape": __name__,
    "unpad_image": __name__,
}

# Methods that the engine reimplements, with the module that defines each.
_REIMPLEMENTED = {
    "forward": "llava.model.llava",
    "generate": "llava.model.llava",
    "prepare_inputs_labels_for_multimodal": "llava.model.llava",
    "encode_images": "llava.model.image_encoder",
}

_HOOK_KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Where the ``forward`` of every module that a tower may skip is defined.
_OWN_HOMES = ("llava.model.encoders", "transformers.", "torch.")


def find_replacement(model: Any) -> str | None:
    """What was replaced in this model that the engine would not run, as "its encode_images was replaced"; else None."""
    for name, home in _REIMPLEMENTED.items():
        if getattr(model, name).__module__ != home:
            return f"its {name} was replaced"
    decoder = model.get_model()
    if has_hook([model, decoder]):
        return "a hook is on a module that the engine does not call"
    for module in itertools.chain([decoder], *((layer, layer.self_attn) for layer in decoder.layers)):
        if is_replaced(module):
            return f"the forward of its {type(module).__name__} was replaced"
    if has_replaced_unpad():
        return "unpad_image was replaced"
    if get_anyres_image_grid_shape is not _OWN_GRID_SHAPE:
        return "get_anyres_image_grid_shape was replaced"
    return None


# Modules.


def has_hook(modules: Iterable[nn.Module]) -> bool:
    """Whether one of these modules has a hook, or a ``forward`` of its own instance."""
    return any(_has_hook(vars(module)) for module in modules)


def _has_hook(values: dict[str, Any]) -> bool:
    if "forward" in values:
        return True
    found = [hook for kind in _HOOK_KINDS if values.get(kind) for hook in values[kind].values()]
    return not all(map(is_recorder, found))


def has_global_hook() -> bool:
    """Whether there is a hook on all modules of the process."""
    return any(getattr(torch_modules, f"_global{kind}", None) for kind in _HOOK_KINDS)


def needs_no_graph(tower: nn.Module) -> bool:
    """Whether a tower's features depend on nothing that is trained: its weights are frozen, and no hook adds any.

    The hook by which Transformers' gradient checkpointing lets embeddings require gradients is not counted.
    """
    if has_global_hook() or any(weight.requires_grad for weight in tower.parameters()):
        return False
    own = "PreTrainedModel.enable_input_require_grads."
    for module in tower.modules():
        values = vars(module)
        hooks = [hook for kind in _HOOK_KINDS if values.get(kind) for hook in values[kind].values()]
        if "forward" in values or not all(
            is_recorder(hook) or getattr(hook, "__qualname__", "").startswith(own) for hook in hooks
        ):
            return False
    return True


def is_replaced(module: nn.Module) -> bool:
    """Whether a module's ``forward`` is not the one of Transformers' model."""
    return not module.forward.__module__.startswith("transformers.models.")


def is_own(module: Any) -> bool:
    """Whether a tower's part is a module whose class Transformers, torch or this package defines."""
    return isinstance(module, nn.Module) and type(module).forward.__module__.startswith(_OWN_HOMES)


def is_tower_watched(tower: Any) -> bool:
    """Whether a tower's whole model has to be called.

    That is so if one of the modules that ``VisionTower.forward`` skips has a hook or was replaced.
    """
    model = tower.vision_tower
    body: Any = getattr(model, "vision_model", None)
    encoder: Any = getattr(body, "encoder", None)
    around = [model, body, encoder]
    if type(model) is not tower.model_class or not all(map(is_own, around)) or has_global_hook():
        return True
    after = [body.post_layernorm, *encoder.layers[tower.num_blocks_run :]]
    skipped = [*around, *(part for module in after for part in module.modules())]
    return not all(map(is_own, skipped)) or has_hook([*skipped, encoder.layers])


# Towers of other classes.


def measure_tower(tower: Any) -> tuple[int, int]:
    """The sides of a tile and of a patch, px, by the names that the original's towers have."""
    tile_px: int = getattr(tower, "image_size", None) or tower.config.image_size
    return tile_px, tile_px // tower.num_patches_per_side


def find_tower_dtype(tower: Any, default: torch.dtype) -> torch.dtype:
    """The dtype in which a tower takes pixels: its ``dtype``, else its first parameter's, else the default."""
    dtype: torch.dtype = getattr(tower, "dtype", None) or next((each.dtype for each in tower.parameters()), default)
    return dtype


# Functions of ``llava_arch``.


def unpad_image(tensor: torch.Tensor, original_size: tuple[int, int]) -> torch.Tensor:
    """A map [C, height, width] without the rows and columns that show only padding of an image (width, height)."""
    columns, rows = unpad(Size(*original_size), Size(tensor.shape[2], tensor.shape[1]), "original")
    return tensor[:, rows.start : rows.stop, columns.start : columns.stop]


# The functions whose results plans count with. The names of this module may be bound to others when a model runs.
_OWN_UNPAD = unpad_image
_OWN_GRID_SHAPE = get_anyres_image_grid_shape


def has_replaced_unpad() -> bool:
    """Whether ``unpad_image`` was replaced."""
    return unpad_image is not _OWN_UNPAD


def choose_grid(image: Size, tiling: Tiling) -> Tiling:
    """The tiling for an image: with one canvas, the grid that a replaced function chose; else as it is."""
    if get_anyres_image_grid_shape is _OWN_GRID_SHAPE or not tiling.is_anyres:
        return tiling
    pinpoints = [(width, height) for width, height in tiling.pinpoints]
    columns, rows = get_anyres_image_grid_shape((image.width, image.height), pinpoints, tiling.tile_px)
    return replace(tiling, pinpoints=(Size(columns * tiling.tile_px, rows * tiling.tile_px),))


def fit_plans(plans: Sequence[TilePlan], num_features: int) -> list[TilePlan]:
    """The plans, with as many features of a tile as ``encode_images`` returned.

    Raises:
        UsageError: several tiles cannot be laid out as one map, because they have more or fewer features than planned.
    """
    fitted = []
    for plan in plans:
        if num_features != plan.features_per_tile:
            if plan.num_tiles > 1 and not plan.is_flat:
                raise UsageError(
                    f"A tile has {num_features} features, but the map of {plan.grid} tiles is laid out from "
                    f"{plan.features_per_tile} of each. Fewer features fit where mm_patch_merge_type is flat."
                )
            plan = replace(plan, extra_positions=num_features - plan.features_per_side**2)
        fitted.append(plan)
    return fitted


def merge_with_replaced_unpad(
    features_TNC: torch.Tensor, plans: Sequence[TilePlan], newline_C: torch.Tensor | None
) -> list[torch.Tensor]:
    """The positions [P, C] of each image, as many as the replaced ``unpad_image`` keeps of its map.

    It is called as in the original: with the map [C, height, width] and the image's (width, height).
    """
    parts = features_TNC.split([plan.num_tiles for plan in plans])
    return [
        _unpad_and_merge(part_TNC, plan, newline_C)
        if newline_C is not None and plan.has_newlines and plan.num_tiles > 1
        else merge(part_TNC, plan, newline_C)
        for part_TNC, plan in zip(parts, plans, strict=True)
    ]


def _unpad_and_merge(features_TNC: torch.Tensor, plan: TilePlan, newline_C: torch.Tensor) -> torch.Tensor:
    side, grid = plan.features_per_side, plan.grid
    tiles = features_TNC[1:].unflatten(1, (side, side)).unflatten(0, (grid.height, grid.width))
    whole_CHW = tiles.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
    map_CHW = unpad_image(whole_CHW, (plan.image.width, plan.image.height))
    kept = Size(map_CHW.shape[2], map_CHW.shape[1])
    shrunk = shrink_map(kept, side, plan.max_tiles)
    if shrunk != kept:
        size = (shrunk.height, shrunk.width)
        map_CHW = nn.functional.interpolate(map_CHW[None], size, mode="bilinear", align_corners=False)[0]
    rows_PC = end_rows(map_CHW.permute(1, 2, 0), newline_C).flatten(0, 1)
    return torch.cat([features_TNC[0], rows_PC]) if plan.has_base else rows_PC
