"""benchmarks/train.py compares like with like: the same loss from every side, and no padding on ours."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks import train


def test_all_sides_have_the_same_loss_and_ours_has_no_padding(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--tiny", "--stages", "2,next", "--threads", str(torch.get_num_threads())]) == 0
    text = capsys.readouterr().out
    rows = re.findall(r"^(llava|no levers|original) +(\d+) \(.*?([\d.]+)x +[\d.]+% +([\d.]+)% +([\d.]+)$", text, re.M)
    assert [row[0] for row in rows] == [*train.SIDES] * 2
    for start in (0, 3):
        ours, plain, original = rows[start : start + 3]
        assert float(ours[3]) == 0
        assert ours[4] == plain[4] == original[4]
        assert float(original[2]) == 1
    assert all(float(row[3]) > 0 for row in rows if row[0] == "original")
    assert text.count("in the first epoch, which fills the cache") == 1, "NeXT's tower is trained"


def test_the_operations_of_a_stage_are_those_of_its_formula() -> None:
    stage = train.STAGES["1"]
    model = train.build_model(stage, "tiny")
    samples = train.make_samples(stage, model, 1, is_tiny=True)
    length, targets = train.count_positions(samples[0], model), int((samples[0]["labels"] != -100).sum())
    assert length == len(samples[0]["input_ids"]) + 15
    layers = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    decoder = 2 * (2 * layers * length + 2 * 32 * 200 * targets) + 6 * length**2 * 32 * 2
    projector = 6 * (32 * 32 + 32 * 32) * 16
    tower = 2 * (2 * (4 * 32 * 32 + 2 * 32 * 64)) * 17 + 4 * 17**2 * 32 * 2
    count = [train.count_operations(model, samples, [length], reads_cache=cached) for cached in (True, False)]
    assert count == [decoder + projector, decoder + projector + tower]


def test_as_many_rows_are_packed_as_the_others_have_batches() -> None:
    lengths = [700, 30, 400, 900, 650, 120, 80, 300]
    limit = train.find_limit(lengths, 3)
    assert len(train.pack(lengths, limit)) == 3
    assert limit >= sum(lengths) / 3
