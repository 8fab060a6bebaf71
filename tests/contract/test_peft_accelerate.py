"""PEFT and accelerate take our models as they take Transformers'."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.model.checkpoint import load_model
from tests.tiny import SIZES, make_lesson, make_model, make_pixels

LAYERS = r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"
SEEN: dict[str, Any] = {"images": make_pixels(5), "image_sizes": SIZES[:1]}


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[1, 5, -200, 7]]), **SEEN).logits


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks for it
def test_adapters_are_trained_saved_and_put_on_another_copy(next_checkpoint: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    before = logits_of(load_model(next_checkpoint, device="cpu", dtype="float32").model)
    base = load_model(next_checkpoint, device="cpu", dtype="float32").model
    config = LoraConfig(r=2, target_modules=LAYERS, modules_to_save=["mm_projector"], task_type="CAUSAL_LM")
    torch.manual_seed(0)
    trained = get_peft_model(base, config)
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], lr=0.5)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = trained.train()(**make_lesson()).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    projector = trained.base_model.model.model.mm_projector.modules_to_save["default"][0]
    assert not torch.equal(projector.weight, trained.base_model.model.model.mm_projector.original_module[0].weight)
    trained.save_pretrained(tmp_path)

    fresh = load_model(next_checkpoint, device="cpu", dtype="float32").model
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path))
    expected = logits_of(trained)
    assert not torch.allclose(expected, before, atol=1e-3)
    torch.testing.assert_close(logits_of(loaded), expected)
    ids = torch.tensor([[1, 5, -200, 7]])
    asked = {**SEEN, "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(loaded.generate(ids, **asked), trained.generate(ids, **asked))
    torch.testing.assert_close(logits_of(loaded.merge_and_unload()), expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def fresh_state() -> Iterator[None]:
    """accelerate keeps what it was first called with for the whole process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("for_evaluation", [False, True])
def test_a_prepared_model_answers_as_before(fresh_state: None, for_evaluation: bool) -> None:
    from accelerate import Accelerator

    model = make_model()
    ids = torch.tensor([[1, 5, -200, 7]])
    asked = {**SEEN, "max_new_tokens": 4, "do_sample": False}
    answer, logits = model.generate(ids, **asked), logits_of(model)
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare_model(model, evaluation_mode=True) if for_evaluation else accelerator.prepare(model)
    assert accelerator.unwrap_model(prepared) is model
    torch.testing.assert_close(logits_of(prepared), logits)
    assert torch.equal(accelerator.unwrap_model(prepared).generate(ids, **asked), answer)


def test_a_prepared_model_learns_with_its_optimizer_in_mixed_precision(fresh_state: None) -> None:
    from accelerate import Accelerator

    model = make_model()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    prepared, optimizer = accelerator.prepare(model.train(), optimizer)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        output = prepared(**make_lesson())
        assert output.logits.dtype == torch.float32, "accelerate hands results on in float32"
        accelerator.backward(output.loss)
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < losses[0]
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
