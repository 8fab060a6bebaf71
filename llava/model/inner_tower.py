"""What a tower looks like whose weights are inside a checkpoint that does not describe it.

A folder or a hub repository of it may say so, and else the shapes of its weights do: they tell the width, the depth,
the patch and the image size. They do not tell the number of heads, which is the width by 64 in all but the largest
CLIPs, nor the activation.
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
# Width, blocks -> heads, of the towers that have wider heads.
# Source: config.json of laion/CLIP-ViT-{H-14,g-14,bigG-14}-laion2B on the hub.
_HEADS = {(1280, 32): 16, (1408, 40): 16, (1664, 48): 16}


def find_description(
    name: str,
    folders: tuple[Path, ...],
    places: Mapping[str, tuple[Path, str]],
    known_towers: Mapping[str, dict[str, Any]],
    is_wanted: bool,
) -> tuple[Path | None, dict[str, Any]]:
    """A folder that describes the tower whose weights are inside the checkpoint, or what config.json lacks about it.

    Args:
        places: of each of the tower's weights by our name, its file and its name there.
        known_towers: CLIPVisionConfig's values of towers by their hub ids.
        is_wanted: the caller named the tower: nothing else will do.
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
            pass  # the weights themselves tell nearly all
    in_files = {path: shapes_in(path) for path in {path for path, _ in places.values()}}
    shapes = {
        ours.removeprefix(layouts.TOWER): in_files[path][theirs]
        for ours, (path, theirs) in places.items()
        if theirs in in_files[path]
    }
    rebuilt = describe_tower(shapes, name, known_towers)
    if rebuilt is None or (known is not None and {**known, **rebuilt} == known):
        if known is not None or not name:  # without a name, whoever reads config.json says what it lacks
            return None, {} if known is None else {"mm_vision_config": known}
        return find_tower(name, folders[0]), {}
    _LOG.warning(
        "%s does not describe its vision tower%s, so the shapes of its weights do: %d px in patches of %d, width %d, "
        "%d blocks of %d heads, %s. If heads or activation are others, name the tower with --vision-tower.",
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
    """CLIPVisionConfig's values for weights of these shapes; None where they are not a whole CLIP tower's.

    Args:
        shapes: by the tower's own names, such as ``embeddings.class_embedding``.
        name: what the checkpoint calls its tower; "" if it does not.
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
    if "post_layernorm.weight" not in shapes:  # blocks may be gone with it, and layers are counted from the end
        return None
    heads = _HEADS.get((width, len(blocks))) or max(1, width // _HEAD_WIDTH)
    if width % heads or (width > _HEAD_WIDTH and width % _HEAD_WIDTH):
        return None
    activation = "gelu" if "laion" in name.lower() else "quick_gelu"
    return {**sizes, "num_attention_heads": heads, "hidden_act": activation}


def _is_same(tower: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    """Whether a well-known tower has these sizes; it may lack blocks at its end, which LLaVA never runs."""
    blocks = tower["num_hidden_layers"]
    return {**tower, **sizes, "num_hidden_layers": blocks} == tower and 0 <= blocks - sizes["num_hidden_layers"] <= 2
