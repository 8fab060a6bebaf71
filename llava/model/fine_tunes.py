"""Finds the base model of a folder that contains only a part of a model: LoRA layers or a projector."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError
from llava.model import adapters
from llava.model.folder import CONFIG, Folder
from llava.model.sources import find_checkpoint

# A folder with this file and without the weights of a whole model contains a projector alone.
PROJECTOR_FILE = "mm_projector.bin"
# The sizes that a fine-tune shares with its base.
SHARED_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


@dataclass(frozen=True)
class FineTune:
    """A folder that contains only a part of a model, and the base that it was trained on."""

    adapter: adapters.Adapter | None  # None: a projector alone
    base: Folder


def find_fine_tune(
    folder: Folder, base: str | Path | None = None, adapter: adapters.Adapter | None = None
) -> FineTune | None:
    """The adapter and the base of a folder without the weights of a whole model.

    None for a whole model, and for a folder with neither weights, LoRA layers nor a projector.

    Args:
        base: the base's name; by default the one that the folder's own files name.
        adapter: the folder's adapter, if the caller has read it already.

    Raises:
        CheckpointError: no base is named, or it cannot be found or is itself a fine-tune.
    """
    if folder.has_weights:
        return None
    adapter = adapter or adapters.find_adapter(folder)
    if adapter is None and not folder.has(PROJECTOR_FILE):
        return None
    found = Folder.of(_find_named_base(folder, adapter) if base is None else find_checkpoint(base))
    if not found.has_weights and found.has(adapters.CONFIG):
        raise CheckpointError(
            f"The base {found} contains LoRA layers itself, where a whole model is needed: "
            "merge it first (llava convert BASE MERGED --to original) and name that as the base."
        )
    return FineTune(adapter, found)


def _find_named_base(folder: Folder, adapter: adapters.Adapter | None) -> Path:
    """The base that adapter_config.json names, else config.json; relative to the current directory or to ``folder``."""
    what = "a projector" if adapter is None else "LoRA layers"
    said = {} if adapter is None else {adapters.CONFIG: adapter.settings.get("base_model_name_or_path")}
    if folder.has(CONFIG):
        said[CONFIG] = folder.config.get("_name_or_path")
    file, name = next(((file, str(name)) for file, name in said.items() if name), ("", ""))
    if not name:
        raise CheckpointError(
            f"{folder} contains only {what}, and does not say what it was trained on: "
            "name the language model it was trained on as the base (--model-base)."
        )
    if not os.path.isdir(os.path.expanduser(name)) and os.path.isdir(folder.path / name):
        return folder.path / name
    revision = None if adapter is None else adapter.settings.get("revision")
    if isinstance(revision, str) and revision and not os.path.exists(os.path.expanduser(name)) and "@" not in name:
        name = f"{name}@{revision}"
    try:
        return find_checkpoint(name)
    except CheckpointError as error:
        reason = str(error).partition(" Short names:")[0]
        raise CheckpointError(
            f"{folder} contains only {what}, trained on '{name}' as its {file} says, which cannot be found. {reason} "
            "Name the model it was trained on as the base (--model-base)."
        ) from error


def find_config(folder: Folder, fine_tune: FineTune | None) -> Folder:
    """The folder whose config.json describes the checkpoint.

    This is the checkpoint's own. A fine-tune without one, such as PEFT's adapters, is described by the training that
    it is a ``checkpoint-N`` of, else by its base.
    """
    if folder.has(CONFIG):
        return folder
    path = folder.path.absolute()
    if re.fullmatch(r"checkpoint-\d+", path.name) and (training := Folder(path.parent)).has(CONFIG):
        return training
    return folder if fine_tune is None else fine_tune.base


def check_base(base: Folder, config_path: Path, values: Mapping[str, Any]) -> None:
    """Raises CheckpointError if the sizes of the base differ from ``values`` of the config.json at ``config_path``."""
    if not base.has(CONFIG) or base.config_path == config_path:
        return

    def sizes(values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, **(values["text_config"] if isinstance(values.get("text_config"), dict) else {})}

    said, found = sizes(values), sizes(base.config)
    for key in SHARED_SIZES:
        if said.get(key) is not None and found.get(key) is not None and said[key] != found[key]:
            raise CheckpointError(
                f"{config_path} says {key}: {said[key]}, but {base.config_path}, its base's, says {found[key]}: "
                "it was trained on another model. Name that as the base (--model-base)."
            )
