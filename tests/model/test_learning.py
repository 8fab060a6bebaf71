"""Gradients: what learns, that every way of computing them agrees, and outside trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from llava.constants import IGNORE_INDEX
from tests.tiny import FAMILIES, ROWS, SIZES, TILES, make_lesson, make_model, make_pixels


def learn(model: Any, **arguments: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss, and the gradient of every parameter that got one."""
    model.zero_grad()
    loss = model(**{**make_lesson(), **arguments}).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one: tuple[Any, dict[str, torch.Tensor]], other: tuple[Any, dict[str, torch.Tensor]]) -> None:
    torch.testing.assert_close(one[0], other[0])
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_loss_is_the_mean_over_all_next_tokens_in_float32() -> None:
    model = make_model()
    lesson = make_lesson()
    *_, labels = model.prepare_inputs_labels_for_multimodal(
        lesson["input_ids"], None, lesson["attention_mask"], None, lesson["labels"], lesson["images"], SIZES
    )
    logits = model(**lesson).logits
    picked = logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    is_target = labels[:, 1:] != IGNORE_INDEX
    expected = -(picked * is_target).sum() / is_target.sum()
    torch.testing.assert_close(model(**lesson).loss, expected)
    assert model.to(torch.bfloat16)(**lesson).loss.dtype == torch.float32
    # The sum over items counted elsewhere, as a trainer that accumulates gradients asks for it.
    summed = make_model()(**lesson, num_items_in_batch=torch.tensor(100)).loss
    torch.testing.assert_close(summed, expected * is_target.sum() / 100)


def test_everything_but_the_frozen_tower_learns() -> None:
    model = make_model().train()
    _, gradients = learn(model)
    silent = {name for name, _ in model.named_parameters()} - gradients.keys()
    assert silent == {name for name, _ in model.named_parameters() if "vision_tower" in name}
    assert all(gradient.any() for gradient in gradients.values())
    model.get_vision_tower().requires_grad_(True)
    _, gradients = learn(model)
    assert "model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight" in gradients


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_the_targets_alone_teach_the_same(family: str) -> None:
    model = make_model(family).train()
    assert_same(learn(model), learn(model, logits_at_targets_only=True))
    output = model(**make_lesson(), logits_at_targets_only=True)
    num_targets = int((make_lesson()["labels"][:, 1:] != IGNORE_INDEX).sum())
    assert output.logits.shape == (num_targets, 120)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_teaches_the_same(reentrant: bool) -> None:
    model = make_model().train()
    model.get_vision_tower().requires_grad_(True)
    plain = learn(model, use_cache=False)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    checkpointed = learn(model, use_cache=False)
    if reentrant:
        # The reentrant kind needs an input that learns: what comes straight from pixels stays out of the graph.
        plain = (plain[0], {name: plain[1][name] for name in checkpointed[1]})
    assert any("mm_projector" in name for name in checkpointed[1])
    assert_same(plain, checkpointed)


def test_padding_side_and_a_text_only_rows_blank_image_teach_the_same() -> None:
    model = make_model().train()
    plain = learn(model)
    blank = [*make_pixels(*TILES), torch.zeros(1, 3, 28, 28)]
    assert_same(plain, learn(model, images=blank, image_sizes=[*SIZES, (28, 28)]))
    model.config.tokenizer_padding_side = "left"
    left = learn(model)
    torch.testing.assert_close(left[0], plain[0], atol=1e-5, rtol=1e-5)


def test_a_batch_of_text_reaches_the_projector_through_its_blank_images() -> None:
    model = make_model().train()
    ids = torch.tensor([[1, 5, 6], [1, 7, 8]])
    blanks = torch.zeros(2, 3, 28, 28)
    model(input_ids=ids, labels=ids, images=blanks).loss.backward()
    assert model.model.mm_projector[0].weight.grad is not None
    assert not model.model.mm_projector[0].weight.grad.any()


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_last_logits_are_computed_if_only_they_are_wanted(keep: int) -> None:
    model = make_model()
    arguments = {"input_ids": torch.tensor([ROWS[0]]), "images": make_pixels(5, 3), "image_sizes": SIZES[:2]}
    whole = model(**arguments).logits
    torch.testing.assert_close(model(**arguments, logits_to_keep=keep).logits, whole[:, -keep:])


def test_a_forward_pass_needs_something_to_pass() -> None:
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        make_model()()


def test_hidden_states_are_given_on_request() -> None:
    output = make_model()(**make_lesson(), output_hidden_states=True)
    assert len(output.hidden_states) == 3
    assert output.hidden_states[-1].shape[:2] == output.logits.shape[:2]
    assert make_model()(**make_lesson(), return_dict=False)[0].ndim == 0, "a tuple that begins with the loss"


def test_transformers_trainer_lowers_the_loss(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    model = make_model()
    before = float(model(**make_lesson()).loss.detach())
    lesson = make_lesson()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=6,
        learning_rate=1e-2,
        remove_unused_columns=False,
        activation_checkpointing=True,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=[0, 0], data_collator=lambda _: lesson)  # type: ignore[arg-type]
    trainer.train()
    assert float(model.eval()(**lesson).loss.detach()) < 0.8 * before


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT asks for it
def test_low_rank_adapters_learn_and_answer() -> None:
    from peft import LoraConfig, get_peft_model

    model = make_model()
    arguments = {"images": make_pixels(5), "image_sizes": SIZES[:1], "max_new_tokens": 4, "do_sample": False}
    ids = torch.tensor([ROWS[1]])
    before = model.generate(ids, **arguments)
    targets = r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    assert torch.equal(adapted.generate(ids, **arguments), before), "adapters begin as zero"
    adapted.train()
    first = adapted(**make_lesson()).loss
    first.backward()
    learning = [name for name, parameter in adapted.named_parameters() if parameter.grad is not None]
    assert learning
    assert all("lora_" in name for name in learning)
    assert adapted.to(torch.bfloat16).base_model.model.model.rotary_emb.inv_freq.dtype == torch.float32
