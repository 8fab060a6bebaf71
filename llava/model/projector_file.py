"""Reads ``pretrain_mm_mlp_adapter``: a file with a trained projector, and perhaps the embeddings of new tokens."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from llava.errors import CheckpointError
from llava.model.weights import read_bin


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


def read_token_rows(file: str, num_new: int, table_shape: torch.Size) -> torch.Tensor | None:
    """The input embeddings of ``num_new`` tokens [num_new, C], from a file that has these rows or the whole table.

    None if it has no embeddings, because its projector was trained without such tokens.

    Raises:
        CheckpointError: it has another number of rows, or rows of another width.
    """
    rows_VC = _read(file).get("model.embed_tokens.weight")
    if rows_VC is None:
        return None
    if rows_VC.ndim != 2 or rows_VC.shape[1] != table_shape[1] or len(rows_VC) not in (num_new, table_shape[0]):
        raise CheckpointError(
            f"{file} holds {len(rows_VC)} embedding rows, but {num_new} new rows or all {table_shape[0]} are needed, "
            f"of {table_shape[1]} values each: model.embed_tokens.weight has the shape {list(rows_VC.shape)}."
        )
    return rows_VC[-num_new:]


def _read(file: str) -> dict[str, torch.Tensor]:
    if str(file).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(file)
    return read_bin(Path(file))
