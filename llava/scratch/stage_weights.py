"""The weights that one stage passes on to later ones: one file, which has to have every expected tensor.

A stage saves only the tensors that it trained or started from, because a later stage takes over everything in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from llava.errors import CheckpointError, UsageError
from llava.scratch.oracle import attach_oracle
from llava.scratch.stages import ScratchStage
from llava.train.resumption import name_some

WEIGHTS = "weights.safetensors"
_TOWER = "model.vision_tower."
_PROJECTOR = "model.mm_projector."
_HEADS = "heads."
_ORACLE = "oracle."


def collect_tensors(kind: str, model: nn.Module, heads: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a stage of that kind passes on, by their names in its file; the heads' begin with "heads."."""
    tensors = dict(model.state_dict())
    if kind == "tower":
        tensors = {name: value for name, value in tensors.items() if name.startswith(_TOWER)}
    if kind == "oracle":
        return {name: value for name, value in tensors.items() if not name.startswith((_TOWER, _PROJECTOR))}
    return {**tensors, **{_HEADS + name: value for name, value in heads.state_dict().items()}}


def save_stage(kind: str, model: nn.Module, heads: nn.Module, folder: Path) -> None:
    """Writes the tensors that a stage of that kind passes on. Atomic: the file appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = collect_tensors(kind, model, heads)
    temporary = folder / f"{WEIGHTS}.partial"
    save_file({name: value.detach().contiguous().clone() for name, value in tensors.items()}, temporary)
    temporary.replace(folder / WEIGHTS)


def load_stages(model: Any, heads: nn.Module, stages: Iterable[ScratchStage], folder: Path) -> None:
    """Loads the weights of these stages of the run in ``folder`` into model and heads; later stages win.

    A model without an oracle gets one if a stage passes one on.

    Raises:
        UsageError: a stage has not been run.
        CheckpointError: a file is damaged, lacks a tensor that its kind of stage passes on, or has one that cannot fit.
    """
    for stage in stages:
        file = folder / stage.name / WEIGHTS
        if not file.is_file():
            raise UsageError(f"The stage '{stage.name}' has not been run: {file} does not exist.")
        try:
            tensors = load_file(file)
        except SafetensorError as error:
            raise CheckpointError(
                f"{file} is damaged ({error}). Delete it to run stage '{stage.name}' again."
            ) from error
        has_oracle = any(name.startswith(_ORACLE) for name in tensors)
        if (has_oracle or stage.kind in ("oracle", "align")) and not hasattr(model, "oracle"):
            attach_oracle(model)
        expected = collect_tensors(stage.kind, model, heads)
        if stage.kind == "instruct" and not has_oracle:
            expected = {name: value for name, value in expected.items() if not name.startswith(_ORACLE)}
        _check_tensors(tensors, expected, file)
        heads_only = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_HEADS)}
        if heads_only:
            heads.load_state_dict({name.removeprefix(_HEADS): value for name, value in heads_only.items()})
        model.load_state_dict(tensors, strict=False)  # the other parts keep what they have


def _check_tensors(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], file: Path) -> None:
    missing = [name for name in expected if name not in found]
    if missing:
        raise CheckpointError(f"{file} lacks {name_some(missing)}. Delete it to run the stage again.")
    unexpected = [name for name in found if name not in expected]
    if unexpected:
        raise CheckpointError(f"{file} holds {name_some(unexpected)}, which this recipe's model does not have.")
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{file} holds '{name}' of shape {list(value.shape)}, but in this recipe's model it has the shape "
                f"{list(expected[name].shape)}."
            )
