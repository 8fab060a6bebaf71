"""Models that are built without values: rare rotary frequencies, and tensors that ask for a real device."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from llava.model.checkpoint import load_model
from llava.model.meta_model import _WithoutValues
from tests.tiny_checkpoints import write_llava_1_6


def test_what_asks_for_a_real_device_gets_its_values() -> None:
    with torch.device("meta"), _WithoutValues():
        inside = nn.Linear(4, 4)
        linear, norm = nn.Linear(4, 4, device="cpu"), nn.LayerNorm(4, device="cpu")
        drawn = torch.randn(1000, device="cpu")
    assert inside.weight.is_meta
    assert 0 < float(linear.weight.detach().abs().max()) <= 0.5
    assert norm.weight.tolist() == [1.0] * 4
    assert 0.8 < float(drawn.std()) < 1.2


def test_rotary_frequencies_of_a_rare_type_are_those_of_a_real_model(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    half = config["hidden_size"] // config["num_attention_heads"] // 2
    factors = {"short_factor": [1.5] * half, "long_factor": [4.0] * half}
    config["rope_scaling"] = {"rope_type": "longrope", "original_max_position_embeddings": 64, **factors}
    path.write_text(json.dumps(config))
    rotary = load_model(str(tmp_path)).model.get_model().rotary_emb
    plain = 10000.0 ** -(torch.arange(half, dtype=torch.float32) / half)
    torch.testing.assert_close(rotary.inv_freq, plain / 1.5)
