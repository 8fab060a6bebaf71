"""A checkpoint read by Transformers' ``from_pretrained`` alone, as training scripts do: never with a random tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError, UsageError
from llava.model.checkpoint import load_model
from llava.model.llava import LlavaLlamaForCausalLM
from tests.tiny_checkpoints import write_llava_1_5, write_llava_1_6

IDS = torch.tensor([[1, 300, -200, 301]])
TOWER = "model.vision_tower.vision_tower.vision_model."


def logits_of(model: Any, **images: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **images).logits


def test_a_tower_outside_the_checkpoint_waits_until_it_is_loaded(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    model, info = LlavaLlamaForCausalLM.from_pretrained(
        tmp_path / "llava", dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert {name for name in tensors if not name.startswith(TOWER)} == set(model.state_dict())
    tower = model.get_vision_tower()
    assert not tower.is_loaded
    assert not list(tower.parameters())
    pixels = torch.randn(1, 3, 28, 28)
    with pytest.raises(UsageError, match=r"clip' is not loaded: call model.get_vision_tower\(\).load_model\(\)"):
        model.generate(IDS, images=pixels, max_new_tokens=2)

    tower.load_model()
    for name, tensor in tensors.items():
        assert torch.equal(model.state_dict()[name], tensor.float()), name
    whole = load_model(tmp_path / "llava", device="cpu", dtype="float32").model
    torch.testing.assert_close(logits_of(model, images=pixels), logits_of(whole, images=pixels))


@pytest.mark.parametrize("described", [True, False])
def test_a_tower_that_should_be_inside_and_is_not_is_an_error(described: bool, tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "other", tmp_path / "clip")
    eyes = {} if described else {"mm_vision_config": None, "mm_vision_tower": str(tmp_path / "clip")}
    write_llava_1_6(tmp_path / "llava", **eyes)
    path = tmp_path / "llava/model.safetensors"
    tensors = load_file(path)
    whole = LlavaLlamaForCausalLM.from_pretrained(tmp_path / "llava")
    assert whole.get_vision_tower().is_loaded

    one = f"{TOWER}encoder.layers.1.mlp.fc1.weight"
    save_file({name: tensor for name, tensor in tensors.items() if name != one}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"but 1 of \d+ are not, the first being {one}"):
        LlavaLlamaForCausalLM.from_pretrained(tmp_path / "llava")
    save_file({name: tensor for name, tensor in tensors.items() if TOWER not in name}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="weights of the vision tower are in the checkpoint"):
        LlavaLlamaForCausalLM.from_pretrained(tmp_path / "llava")


def test_what_the_tower_never_runs_may_be_missing(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    path = tmp_path / "model.safetensors"
    unused = (f"{TOWER}post_layernorm.", f"{TOWER}encoder.layers.2.")
    whole = LlavaLlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(unused)}
    save_file(kept, path, {"format": "pt"})
    model = LlavaLlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    pixels = torch.randn(1, 3, 28, 28)
    torch.testing.assert_close(logits_of(model, images=pixels), logits_of(whole, images=pixels))
