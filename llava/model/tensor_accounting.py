"""Compares the tensors in a checkpoint's files with the model's parameters, by name, before any of them is read.

Every tensor is used, or skipped by a rule, or named in the CheckpointError that lists all missing and all unexpected
tensors at once. Shapes and dtypes are checked later, as each tensor is read (``checkpoint_reader``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llava.errors import CheckpointError
from llava.model import adapters, layouts

_PROJECTOR_PARTS = (layouts.PROJECTOR, layouts.NEWLINE)


@dataclass(frozen=True)
class TensorSource:
    """Tensors of one origin: the file of each by its name there, and the function that turns these names into ours."""

    places: dict[str, Path]
    rename: Callable[[str], str | None]

    def names(self) -> dict[str, Path]:
        """The file of each tensor by our name, without the tensors that ``rename`` skips."""
        return {ours: path for name, path in self.places.items() if (ours := self.rename(name)) is not None}


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its name. A parameter that two modules share appears under both names."""
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}


def account(model: Any, sources: Sequence[TensorSource], config_path: Path, drawn: Collection[str] = ()) -> set[str]:
    """The tensors in the files that the model does not use, by our names: unused blocks of the tower, the newline.

    Removes the unused end of the model's tower if the files lack it. ``drawn``: our names of tensors that no file needs
    to have, because they are new.

    Raises:
        CheckpointError: a parameter has no tensor, or a tensor no parameter. All of them are listed.
    """
    wanted = shapes_of(model)
    tower = model.get_vision_tower()
    found = {ours: path for source in sources for ours, path in source.names().items()}
    unused_blocks = range(tower.num_blocks_run, tower.config.num_hidden_layers)
    skipped = {name for name in found if layouts.find_tower_block(name) in unused_blocks} - wanted.keys()
    skipped |= set() if layouts.NEWLINE in wanted else {layouts.NEWLINE}  # trained with another mm_patch_merge_type
    missing = {name for name in wanted if name not in found and name not in drawn}
    if model.config.tie_word_embeddings:
        missing.discard(layouts.HEAD)
    missing -= _drop_absent_end(tower, missing)
    unexpected = {name for name in found if name not in wanted} - skipped
    if missing or unexpected:
        folders = sorted({str(path.parent) for path in found.values()})
        faults = [
            f"{len(names)} tensors {what}: {_name_some(names)}"
            for names, what in ((missing, "are missing"), (unexpected, "are unexpected"))
            if names
        ]
        remedy = _explain_projector(model.config, wanted, found) or _explain_adapter(sources, missing)
        raise CheckpointError(
            f"The files in {' and '.join(folders)} do not fit {config_path}: {'; '.join(faults)}. "
            + (remedy or "One of them belongs to another model, or not all of them were copied.")
        )
    return skipped


def _explain_projector(config: Any, wanted: Iterable[str], found: Iterable[str]) -> str:
    """A sentence about a projector whose depth differs from config.json's; "" if the depths agree."""

    def layers(names: Iterable[str]) -> list[str]:
        own = (name.removeprefix(layouts.PROJECTOR) for name in names if name.startswith(layouts.PROJECTOR))
        return sorted({name.rpartition(".")[0] or "linear" for name in own})

    has, needs = layers(found), layers(wanted)
    if not has or has == needs:
        return ""
    return (
        f"config.json says mm_projector_type: {getattr(config, 'mm_projector_type', 'linear')}, whose layers are "
        f"{', '.join(needs) or 'none'}, but the files' projector has {', '.join(has)}: correct the one that is wrong."
    )


def _explain_adapter(sources: Iterable[TensorSource], missing: set[str]) -> str:
    """Sentences about a LoRA fine-tune whose projector is missing; "" if that is not the fault."""
    is_adapted = any(source.rename is adapters.name_from_adapter for source in sources)
    if not is_adapted or not missing or not all(name.startswith(_PROJECTOR_PARTS) for name in missing):
        return ""
    return (
        "A LoRA fine-tune keeps its projector in non_lora_trainables.bin, which the original writes only when "
        "training ends: copy that file or an mm_projector.bin beside the adapter, or name a whole LLaVA as base."
    )


def _drop_absent_end(tower: Any, missing: set[str]) -> set[str]:
    """Removes from the tower the modules that LLaVA never runs, if the files lack them; returns their parameters.

    These are the blocks after the layer that is read, and the last norm.
    """
    gone = {f"{layouts.TOWER}post_layernorm.{leaf}" for leaf in ("weight", "bias")}
    if not gone <= missing:
        return set()
    body = tower.vision_tower.vision_model
    body.post_layernorm = nn.Identity()
    while len(body.encoder.layers) > tower.num_blocks_run:
        prefix = f"{layouts.TOWER}encoder.layers.{len(body.encoder.layers) - 1}."
        block = {prefix + name for name, _ in body.encoder.layers[-1].named_parameters()}
        if not block <= missing:
            break
        gone |= block
        del body.encoder.layers[-1]
    return gone


def _name_some(names: set[str], limit: int = 8) -> str:
    shown = sorted(names)[:limit]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def check_tied(one: torch.Tensor, other: torch.Tensor) -> None:
    """Raises CheckpointError unless a tied head and the embeddings, both stored in the files, are equal."""
    if not torch.equal(one, other.to(one.dtype)):
        raise CheckpointError(
            "config.json says tie_word_embeddings: true, but lm_head.weight differs from model.embed_tokens.weight. "
            "Set it to false if the head was trained separately."
        )
