"""Reads ``pretrain_mm_mlp_adapter``: a file with a trained projector, and perhaps the embeddings of new tokens."""

from __future__ import annotations

import torch
from torch import nn

from llava.errors import CheckpointError


def load_projector(projector: nn.Module, file: str) -> None:
    """Loads the weights of ``file`` (``.bin`` or ``.safetensors``) into the projector.

    Raises:
        CheckpointError: the file holds no projector.
    """
    prefix = "mm_projector."
    weights = {name.split(prefix)[1]: value for name, value in _read(file).items() if prefix in name}
    if not weights:
        raise CheckpointError(f"{file} holds no projector: none of its names contains '{prefix}'.")
    projector.load_state_dict(weights)


def read_token_rows(file: str, num_new: int, table_shape: torch.Size) -> torch.Tensor:
    """The input embeddings of ``num_new`` tokens [num_new, C], from a file that holds these rows or the whole table.

    Raises:
        CheckpointError: the file holds neither.
    """
    rows_VC = _read(file).get("model.embed_tokens.weight")
    if rows_VC is None or (rows_VC.shape != table_shape and len(rows_VC) != num_new):
        found = "no model.embed_tokens.weight" if rows_VC is None else f"{len(rows_VC)} embedding rows"
        raise CheckpointError(f"{file} holds {found}, but {num_new} new rows or all {table_shape[0]} are needed.")
    return rows_VC[-num_new:]


def _read(file: str) -> dict[str, torch.Tensor]:
    if str(file).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)
