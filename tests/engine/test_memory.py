"""What a tile costs in prompt positions, and how many blocks fit into memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from llava.engine.memory import _estimate_tile_cost
from llava.model.quantized_linear import quantize_linears
from tests.tiny import ANYRES, FAMILIES, SQUARE, TOWER, make_model

WIDE_TOWER = {**TOWER, "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 5}
# Blocks run: all but the last. Of each, 4 * 96 * 96 + 2 * 96 * 384 numbers, for 16 patches and CLS; of each decoder
# layer 2 * 48 * 48 + 2 * 48 * 24 + 3 * 48 * 64.
WIDE_COST = round(4 * (4 * 96 * 96 + 2 * 96 * 384) * 17 / (2 * (2 * 48 * 48 + 2 * 48 * 24 + 3 * 48 * 64)))


def make_wide(family: str = "llama", **changes: Any) -> Any:
    return make_model(family, mm_vision_config=WIDE_TOWER, mm_hidden_size=96, **changes)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tiling", [ANYRES, SQUARE], ids=["anyres", "square"])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_a_tile_costs_as_many_positions_whatever_the_bits(family: str, tiling: dict[str, Any], bits: int) -> None:
    model = make_wide(family, **tiling)
    if bits < 16:
        quantize_linears(model, bits)
    assert _estimate_tile_cost(model) == WIDE_COST == 233


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_adapters_do_not_make_a_tile_cheaper() -> None:
    model = make_wide()
    adapted: Any = get_peft_model(model, LoraConfig(r=16, target_modules=["q_proj", "v_proj", "gate_proj"]))
    assert any("lora_A" in name for name, _ in adapted.named_modules())
    assert _estimate_tile_cost(adapted.base_model.model) == WIDE_COST
    assert _estimate_tile_cost(adapted.merge_and_unload()) == WIDE_COST


def test_a_weight_that_packs_two_numbers_into_a_byte_counts_whole() -> None:
    class Packed(nn.Linear):
        """As bitsandbytes' Linear4bit: the weight has half as many bytes as the matrix has numbers."""

    model = make_wide()
    for layer in model.get_model().layers.modules():
        if isinstance(layer, nn.Linear):
            layer.__class__ = Packed
            layer.weight = nn.Parameter(torch.zeros(layer.weight.numel() // 2, 1, dtype=torch.uint8), False)
    assert _estimate_tile_cost(model) == WIDE_COST


def test_a_model_without_a_tower_has_tiles_that_cost_one_position(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    monkeypatch.setattr(model.get_model(), "vision_tower", None)
    assert model.get_vision_tower() is None
    assert _estimate_tile_cost(model) == 1
