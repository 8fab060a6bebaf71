"""Finds the configuration of a tower whose weights are in a checkpoint that does not describe it.

A folder or a hub repository of the tower may have it. Otherwise the shapes of the weights give the width, the depth,
the patch size and the image size. They do not give the number of heads, which is the width divided by 64 in all but the
largest CLIPs, nor the activation.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.config import find_tower_folder
from llava.errors import CheckpointError
from llava.model import layouts
from llava.model.sources import fetch_description, find_known_tower, find_tower
from llava.model.weights import shapes_in

_LOG = logging.getLogger("llava.model")

_HEAD_WIDTH = 64
# (width, blocks) -> heads of the towers with wider heads.
# Source: config.json of laion/CLIP-ViT-{H-14,g-14,bigG-14}-laion2B on the hub.
_HEADS = {(1280, 32): 16, (1408, 40): 16, (1664, 48): 16}


def find_description(
    name: str,
    folders: tuple[Path, ...],
    places: Mapping[str, tuple[Path, str]],
    known_towers: Mapping[str, dict[str, Any]],
    is_wanted: bool,
) -> tuple[Path | None, dict[str, Any]]:
    """A folder that describes the tower whose weights are in the checkpoint, or the values that config.json lacks.

    Args:
        places: the file of each of the tower's weights and its name there, by our name.
        known_towers: CLIPVisionConfig's values for towers, by their hub ids.
        is_wanted: whether the user named the tower, so that no other description will do.

    Raises:
        CheckpointError: the tower is described nowhere, and its weights are not a complete CLIP tower's.
    """
    for folder in folders:
        if (found := find_tower_folder(name, folder)) is not None:
            return found, {}
    if is_wanted:
        return find_tower(name, folders[0]), {}
    known = known_towers.get(name) or known_towers.get(find_known_tower(name) or "")
    if known is None and name:
        try:
            return fetch_description(name), {}
        except CheckpointError:
            pass  # the weights' shapes give almost everything
    in_files = {path: shapes_in(path) for path in {path for path, _ in places.values()}}
    shapes = {
        ours.removeprefix(layouts.TOWER): in_files[path][theirs]
        for ours, (path, theirs) in places.items()
        if theirs in in_files[path]
    }
    rebuilt = describe_tower(shapes, name, known_towers)
    if rebuilt is None or (known is not None and {**known, **rebuilt} == known):
        if known is not None or not name:  # without a name, the reader of config.json says what is missing
            return None, {} if known is None else {"mm_vision_config": known}
        return find_tower(name, folders[0]), {}
    _LOG.warning(
        "%s does not describe its vision tower%s, so the shapes of its weights do: %d px in patches of %d, width %d, "
        "%d blocks of %d heads, %s. If its heads or activation differ, name the tower with --vision-tower.",
        folders[0],
        f" '{name}', which cannot be found" if name else "",
        *(rebuilt[key] for key in ("image_size", "patch_size", "hidden_size", "num_hidden_layers")),
        rebuilt["num_attention_heads"],
        rebuilt.get("hidden_act", "quick_gelu"),
    )
    return None, {"mm_vision_config": rebuilt}


def describe_tower(
    shapes: Mapping[str, tuple[int, ...]], name: str, known_towers: Mapping[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """CLIPVisionConfig's values for weights of these shapes; None if they are not a complete CLIP tower's.

    Args:
        shapes: by the tower's own names, such as ``embeddings.class_embedding``.
        name: the tower's name in the checkpoint; "" if it has none.
    """
    width = (shapes.get("embeddings.class_embedding") or (0,))[0]
    patch = shapes.get("embeddings.patch_embedding.weight", ())
    positions = shapes.get("embeddings.position_embedding.weight", ())
    inner = shapes.get("encoder.layers.0.mlp.fc1.weight", ())
    if not width or len(patch) != 4 or len(positions) != 2 or len(inner) != 2 or min(*patch, *positions, *inner) < 1:
        return None
    side = math.isqrt(positions[0] - 1)
    if side < 1 or side * side != positions[0] - 1 or patch[2] != patch[3]:
        return None
    blocks = {int(match[1]) for key in shapes if (match := re.match(r"encoder\.layers\.(\d{1,4})\.", key))}
    sizes = {
        "hidden_size": width,
        "intermediate_size": inner[0],
        "num_hidden_layers": len(blocks),
        "image_size": side * patch[2],
        "patch_size": patch[2],
    }
    known = next((tower for tower in known_towers.values() if _is_same(tower, sizes)), None)
    if known is not None:
        return dict(known)
    if (
        "post_layernorm.weight" not in shapes
    ):  # blocks may be missing too, and mm_vision_select_layer counts from the end
        return None
    heads = _HEADS.get((width, len(blocks))) or max(1, width // _HEAD_WIDTH)
    if width % heads or (width > _HEAD_WIDTH and width % _HEAD_WIDTH):
        return None
    activation = "gelu" if "laion" in name.lower() else "quick_gelu"
    return {**sizes, "num_attention_heads": heads, "hidden_act": activation}


def _is_same(tower: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    """Whether a known tower has these sizes; up to two last blocks, which LLaVA does not run, may be missing."""
    blocks = tower["num_hidden_layers"]
    return {**tower, **sizes, "num_hidden_layers": blocks} == tower and 0 <= blocks - sizes["num_hidden_layers"] <= 2
