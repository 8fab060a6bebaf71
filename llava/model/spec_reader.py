"""What a checkpoint is and which vision tower it uses: config.json, completed by the tower's own files.

A tower whose weights are inside the checkpoint wins over the one that config.json names. A tower that config.json does
not describe is described by its folder, by its well-known name, or by the shapes of its weights (``inner_tower``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.config import ModelSpec, check_names, find_tower_folder, read_spec, read_tower_config
from llava.errors import CheckpointError
from llava.model import layouts
from llava.model.fine_tunes import SHARED_SIZES
from llava.model.folder import Folder
from llava.model.inner_tower import find_description
from llava.model.sources import find_tower
from llava.model.tensor_accounting import TensorSource
from llava.towers import KNOWN_TOWERS, refuse_foreign_tower

_LOG = logging.getLogger("llava.model")


def find_spec(
    folders: Sequence[Folder],
    config_path: Path,
    values: Mapping[str, Any],
    sources: Iterable[TensorSource],
    vision_tower: str | Path | None,
) -> tuple[ModelSpec, Path | None]:
    """The checkpoint's spec, and the folder of its tower; None if the tower's weights are inside the checkpoint.

    Args:
        folders: where the tower is looked for: the checkpoint's own, and its base's.
        config_path: the file that ``values`` come from, which errors name.
        values: of config.json.
        sources: all tensors of the checkpoint.
        vision_tower: the tower that the caller names instead of config.json's ``mm_vision_tower``.

    Raises:
        CheckpointError: config.json is unusable, or there is no tower that fits it.
    """
    if vision_tower is not None:
        values = {**values, "mm_vision_tower": str(vision_tower)}
    check_names(values, config_path)
    name = str(values.get("mm_vision_tower") or values.get("vision_tower") or "")
    paths = tuple(folder.path for folder in folders)
    places = {ours: (path, theirs) for source in sources for theirs, path in source.places.items()
              if (ours := source.rename(theirs) or "").startswith(layouts.TOWER)}  # fmt: skip
    is_inside = bool(places)
    described = values.get("mm_vision_config") or values.get("vision_config")
    tower_folder = None
    if is_inside and vision_tower is not None:
        _LOG.warning("%s has its vision tower's weights inside: they are used, not those of %s.", paths[0], name)
    if name and not (is_inside and described) and not any(find_tower_folder(name, path) for path in paths):
        refuse_foreign_tower(name, config_path)
    if is_inside and not described:
        tower_folder, rebuilt = find_description(name, paths, places, KNOWN_TOWERS, is_wanted=vision_tower is not None)
        values = {**values, **rebuilt}
    elif name and not is_inside:
        tower_folder = find_tower(name, next((path for path in paths if find_tower_folder(name, path)), paths[0]))
    spec = read_spec(config_path.parent, tower_folder=tower_folder, config=values)
    width = spec.tower_config["hidden_size"] * len(spec.scales)
    if spec.tower_hidden_size != width:
        raise CheckpointError(
            f"{config_path} says mm_hidden_size: {spec.tower_hidden_size}, but its vision tower '{spec.tower}' gives "
            f"features of {width} values: name the tower that the projector was trained with as mm_vision_tower."
        )
    if tower_folder is None or is_inside:
        return spec, None
    if values.get("unfreeze_mm_vision_tower"):
        raise CheckpointError(
            f"{config_path} says unfreeze_mm_vision_tower: true, so the vision tower was trained and its weights have "
            f"to be inside the checkpoint, but none are there; those of '{spec.tower}' are not the trained ones. Copy "
            "or download the checkpoint again, or set it to false if the tower was not trained."
        )
    if described:
        _check_tower(tower_folder, config_path, spec)
    return spec, tower_folder


def _check_tower(tower_folder: Path, config_path: Path, spec: ModelSpec) -> None:
    """Raises CheckpointError if config.json describes another tower than the one whose weights are read."""
    found = read_tower_config(tower_folder)
    for key in (*SHARED_SIZES, "image_size", "patch_size", "hidden_act"):
        said = spec.tower_config.get(key)
        if said is not None and found.get(key) is not None and said != found[key]:
            raise CheckpointError(
                f"{config_path} says {key}: {said} for its vision tower, but {tower_folder / 'config.json'} says "
                f"{found[key]}: correct mm_vision_config, or name another tower as mm_vision_tower."
            )
