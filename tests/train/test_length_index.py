"""The lengths of samples are counted once, and again for what has changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.errors import BadImage
from llava.train.dataset.length_index import LengthIndex
from llava.train.dataset.samples import InstructionData
from llava.train.devices import parallel
from llava.train.recipe import TuningStage
from llava.train.speed import levers
from tests.train.test_samples import ANYRES, make_data, turns, write_data

SAID = turns("<image>\nWhat?", "A cat")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the samples whose positions are counted from now on."""
    numbers: list[int] = []
    count = InstructionData.count_positions

    def watched(self: InstructionData, index: int) -> int:
        numbers.append(index)
        return count(self, index)

    monkeypatch.setattr(InstructionData, "count_positions", watched)
    return numbers


def read_all(data: InstructionData, file: Path) -> list[int]:
    index = LengthIndex(file, data)
    lengths = [index.count_positions(number) for number in range(len(data))]
    index.save()
    return lengths


def test_only_the_first_start_counts_and_a_changed_sample_is_counted_again(tmp_path: Path, counted: list[int]) -> None:
    file = tmp_path / "out/lengths.safetensors"
    source = write_data(tmp_path, ("a.png", SAID), (None, turns("Q", "A")), ("b.png", SAID))
    data = make_data(source, ANYRES)
    first = read_all(data, file)
    assert counted == [0, 1, 2]
    assert read_all(data, file) == first
    assert counted == [0, 1, 2]
    Image.new("RGB", (20, 60)).save(tmp_path / "b.png")
    os.utime(tmp_path / "b.png", (1, 1))
    changed = read_all(data, file)
    assert counted == [0, 1, 2, 2]
    assert changed == [data.count_positions(number) for number in range(3)]
    assert changed[2] != first[2]


@pytest.mark.parametrize("options", [{"rule": "next"}, {"max_length": 9}, {"template": "llava_llama_2"}])
def test_samples_that_are_encoded_in_another_way_have_lengths_of_their_own(
    tmp_path: Path, counted: list[int], options: dict[str, Any]
) -> None:
    source = write_data(tmp_path, ("a.png", SAID))
    read_all(make_data(source), tmp_path / "lengths")
    read_all(make_data(source, **options), tmp_path / "lengths")
    assert counted == [0, 0]
    read_all(make_data(source), tmp_path / "lengths")
    assert counted == [0, 0], "both are kept"


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 64])
def test_a_damaged_index_is_an_empty_one_and_is_replaced(tmp_path: Path, counted: list[int], content: bytes) -> None:
    data = make_data(write_data(tmp_path, ("a.png", SAID)))
    (tmp_path / "lengths").write_bytes(content)
    assert read_all(data, tmp_path / "lengths") == read_all(data, tmp_path / "lengths")
    assert counted == [0]


def test_an_unusable_sample_is_an_error_each_time_and_a_full_folder_is_none(tmp_path: Path) -> None:
    data = make_data(write_data(tmp_path, ("none.png", SAID)))
    (tmp_path / "file").write_text("")
    index = LengthIndex(tmp_path / "file/lengths", data)
    for _ in range(2):
        with pytest.raises(BadImage, match=r"none\.png"):
            index.count_positions(0)
    data = make_data(write_data(tmp_path, ("a.png", SAID)))
    read_all(data, tmp_path / "file/lengths")


def test_processes_count_their_shares_and_pack_the_same_rows_although_one_lacks_a_file(
    tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [(name, turns("<image>\nWhat?", "A cat" * (1 + i))) for i, name in enumerate(["a.png", "b.png"] * 3)]
    data = make_data(write_data(tmp_path, *samples))
    stage = TuningStage(name="tune", batch_size=1, lr=1e-3, packing=True)
    whole = levers.pack_samples(stage, data, tmp_path / "whole")
    counted.clear()
    shares: list[Any] = []
    monkeypatch.setattr(levers, "count_processes", lambda: 2)
    monkeypatch.setattr(levers, "share_objects", lambda own: shares.append(own) or shares)
    # What the first process gets from the second, which is asked before it here.
    monkeypatch.setattr(levers, "read_rank", lambda: 1)
    monkeypatch.setattr(levers, "PackedData", lambda *_: None)
    levers.LengthIndex(tmp_path / "x", data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levers, "share_objects", lambda own: (shares.append(own), [([0] * 3, []), own])[1])
        levers.pack_samples(stage, data, tmp_path / "two")
    assert counted == [1, 3, 5]
    monkeypatch.undo()
    (tmp_path / "b.png").unlink()  # the first process needs only a.png
    monkeypatch.setattr(levers, "count_processes", lambda: 2)
    monkeypatch.setattr(levers, "share_objects", lambda own: [own, shares[0]])
    assert levers.pack_samples(stage, data, tmp_path / "two").rows == whole.rows
    assert parallel.share_objects("own") == ["own"]
