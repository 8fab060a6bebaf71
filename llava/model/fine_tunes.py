"""Finds what a folder was trained on that holds only a part of a model: LoRA layers or a projector."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.config import read_config_dict
from llava.errors import CheckpointError
from llava.model import adapters
from llava.model.sources import find_checkpoint
from llava.model.weights import has_weights

# A folder with this and no weights of a whole model was trained on another, its base; so was one with LoRA layers.
PROJECTOR_FILE = "mm_projector.bin"
# What a fine-tune cannot have otherwise than its base.
SHARED_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


@dataclass(frozen=True)
class FineTune:
    """A folder that holds only a part of a model, and what it was trained on."""

    adapter: adapters.Adapter | None  # None: a projector alone
    base: Path


def find_fine_tune(folder: Path, base: str | Path | None = None) -> FineTune | None:
    """What a folder without the weights of a whole model was trained on: ``base``, else what its own files say.

    None for a whole model, and where there is nothing at all.

    Raises:
        CheckpointError: no base is named, or it cannot be found or is a fine-tune itself.
    """
    adapter = None if has_weights(folder) else adapters.find_adapter(folder)
    if has_weights(folder) or (adapter is None and not os.path.isfile(folder / PROJECTOR_FILE)):
        return None
    found = _find_named_base(folder, adapter) if base is None else find_checkpoint(base)
    if not has_weights(found) and os.path.isfile(found / adapters.CONFIG):
        raise CheckpointError(
            f"The base {found} holds LoRA layers itself, where a whole model is needed: "
            "merge it first (llava convert BASE MERGED --to original) and name that as the base."
        )
    return FineTune(adapter, found)


def _find_named_base(folder: Path, adapter: adapters.Adapter | None) -> Path:
    """The base that adapter_config.json names, else config.json: from here, or from the fine-tune's own folder."""
    what = "a projector" if adapter is None else "LoRA layers"
    said = {} if adapter is None else {adapters.CONFIG: adapter.settings.get("base_model_name_or_path")}
    if os.path.isfile(folder / "config.json"):
        said["config.json"] = read_config_dict(folder).get("_name_or_path")
    file, name = next(((file, str(name)) for file, name in said.items() if name), ("", ""))
    if not name:
        raise CheckpointError(
            f"{folder} holds only {what}, and does not say what it was trained on: "
            "name the language model it was trained on as the base (--model-base)."
        )
    if not os.path.isdir(os.path.expanduser(name)) and os.path.isdir(folder / name):
        return folder / name
    revision = None if adapter is None else adapter.settings.get("revision")
    if isinstance(revision, str) and revision and not os.path.exists(os.path.expanduser(name)) and "@" not in name:
        name = f"{name}@{revision}"
    try:
        return find_checkpoint(name)
    except CheckpointError as error:
        reason = str(error).partition(" Short names:")[0]
        raise CheckpointError(
            f"{folder} holds only {what}, trained on '{name}' as its {file} says, which cannot be found. {reason} "
            "Name the model it was trained on as the base (--model-base)."
        ) from error


def find_config(folder: Path, base: str | Path | None = None) -> Path:
    """The folder whose config.json counts.

    Its own; of a fine-tune that has none, as PEFT's adapters, that of the training it is a checkpoint of, else its
    base's.
    """
    if os.path.isfile(folder / "config.json"):
        return folder
    parent = folder.absolute().parent
    if re.fullmatch(r"checkpoint-\d+", folder.absolute().name) and os.path.isfile(parent / "config.json"):
        return parent
    fine_tune = find_fine_tune(folder, base)
    return folder if fine_tune is None else fine_tune.base


def check_base(base: Path, config_path: Path, values: Mapping[str, Any]) -> None:
    """CheckpointError if the base is of other sizes than the config.json that counts."""
    if not os.path.isfile(base / "config.json") or base == config_path.parent:
        return

    def sizes(values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, **(values["text_config"] if isinstance(values.get("text_config"), dict) else {})}

    said, found = sizes(values), sizes(read_config_dict(base))
    for key in SHARED_SIZES:
        if said.get(key) is not None and found.get(key) is not None and said[key] != found[key]:
            raise CheckpointError(
                f"{config_path} says {key}: {said[key]}, but {base / 'config.json'}, its base's, says {found[key]}: "
                "it was trained on another model. Name that as the base (--model-base)."
            )
