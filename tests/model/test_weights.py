"""Weights are written while they come: no more is held than one file's."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llava.errors import LlavaError
from llava.model.weights import find_tensors, write_tensors


class Source:
    """Makes tensors one after the other and knows how many bytes of them are alive."""

    def __init__(self, num_tensors: int, rows: int) -> None:
        self.num_tensors = num_tensors
        self.rows = rows
        self.alive: list[tuple[weakref.ref[Any], int]] = []
        self.most_bytes = 0

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for number in range(self.num_tensors):
            values = np.full((self.rows, 10), number, dtype=np.float32)
            self.alive.append((weakref.ref(values), values.nbytes))
            self.most_bytes = max(
                self.most_bytes, sum(size for reference, size in self.alive if reference() is not None)
            )
            tensor = torch.from_numpy(values)
            del values
            yield f"t{number:03}", tensor
            del tensor


def test_one_shard_and_the_next_tensor_are_all_that_is_held(tmp_path: Path) -> None:
    source = Source(num_tensors=40, rows=25)  # 1000 bytes each
    write_tensors(source, tmp_path, max_shard_bytes=4000)
    assert 4000 <= source.most_bytes <= 5000
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert sorted({*index["weight_map"].values()}) == [f"model-{n:05}-of-00010.safetensors" for n in range(1, 11)]
    assert index["metadata"]["total_size"] == 40_000
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "model.safetensors.index.json"
    places = find_tensors(tmp_path)
    assert len(places) == 40
    assert torch.equal(load_file(places["t017"])["t017"], torch.full((25, 10), 17.0))


def test_a_tensor_larger_than_a_shard_has_a_file_of_its_own(tmp_path: Path) -> None:
    write_tensors(Source(num_tensors=3, rows=25), tmp_path, max_shard_bytes=1)
    assert len(list(tmp_path.glob("model-*-of-00003.safetensors"))) == 3


def test_what_fits_is_one_file_without_an_index(tmp_path: Path) -> None:
    write_tensors(Source(num_tensors=4, rows=25), tmp_path, max_shard_bytes=4000)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_tensors_one_level_down_are_told_from_damage(tmp_path: Path, key: str) -> None:
    torch.save({key: {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(LlavaError, match=f"nested under '{key}'"):
        find_tensors(tmp_path)


def test_weights_that_cannot_be_written_say_where(tmp_path: Path) -> None:
    with pytest.raises(LlavaError, match="nowhere"):
        write_tensors(Source(num_tensors=1, rows=2), tmp_path / "nowhere", max_shard_bytes=4000)
