"""An image adapter: which positions it changes, in ``forward``, ``generate`` and training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DynamicCache

from llava.errors import CheckpointError, UsageError
from llava.model.checkpoint import load_model
from llava.model.conversion import convert
from llava.model.image_adapter import ADAPTED, at_positions, find_image_adapter, merged_weights
from llava.model.quantized_linear import quantize_linears
from tests.tiny import ROWS, SIZES, SLOT, TILES, make_lesson, make_model, make_pixels, pad
from tests.tiny_checkpoints import write_llava_1_6

ADAPTER = {"rank": 3, "alpha": 6}
TEXT = torch.tensor([[1, 8, 9, 10, 20, 30]])
ONE_IMAGE = torch.tensor([[1, 5, SLOT, 7, 9]])


def make_adapted(seed: int = 0, **changes: Any) -> Any:
    """A model whose adapter does something; its other weights are those of ``make_model(seed=seed)``."""
    model, plain = make_model(seed=seed, mm_image_adapter=ADAPTER, **changes), make_model(seed=seed, **changes)
    model.load_state_dict(plain.state_dict(), strict=False)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".image_lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.fixture(scope="module")
def adapted() -> Any:
    return make_adapted()


@pytest.fixture(scope="module")
def plain() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def everywhere() -> Any:
    """The same model with the adapter merged into its matrices, as if it were active at every position."""
    model, adapted = make_model(), make_adapted()
    adapter = find_image_adapter(adapted)
    assert adapter is not None
    for layer, linears in zip(model.model.layers, adapter.layers, strict=True):
        for name in ADAPTED:
            layer.get_submodule(name).weight.data = merged_weights(linears[name])
    return model


def test_the_parameters_are_named_by_the_layer_that_they_adapt(adapted: Any) -> None:
    shapes = {name: list(value.shape) for name, value in adapted.state_dict().items() if "layers.1.mlp.down" in name}
    assert shapes == {
        "model.layers.1.mlp.down_proj.weight": [48, 64],
        "model.layers.1.mlp.down_proj.image_lora_A.weight": [3, 64],
        "model.layers.1.mlp.down_proj.image_lora_B.weight": [48, 3],
    }
    adapter = find_image_adapter(adapted)
    assert adapter is not None
    assert (adapter.rank, adapter.scaling, [len(layer) for layer in adapter.layers]) == (3, 2.0, [7, 7])


def test_a_new_adapter_changes_nothing_and_a_plain_model_has_none(plain: Any) -> None:
    model = make_model(mm_image_adapter=ADAPTER)
    model.load_state_dict(plain.state_dict(), strict=False)
    images = make_pixels(1)
    assert torch.equal(model(ONE_IMAGE, images=images).logits, plain(ONE_IMAGE, images=images).logits)
    assert find_image_adapter(plain) is None


@pytest.mark.parametrize("said", [{"rank": 0, "alpha": 1}, {"rank": 4}, {"rank": 4, "alpha": True}, 16, {"rank": "4"}])
def test_a_description_that_is_no_rank_and_alpha_is_refused(said: Any) -> None:
    with pytest.raises(CheckpointError, match="mm_image_adapter"):
        make_model(mm_image_adapter=said)


def test_text_alone_has_the_base_models_logits_bit_for_bit(adapted: Any, plain: Any) -> None:
    assert torch.equal(adapted(TEXT).logits, plain(TEXT).logits)
    both = pad([ROWS[2], [1, 8]])
    assert torch.equal(adapted(**both).logits, plain(**both).logits)
    assert torch.equal(adapted.generate(TEXT, max_new_tokens=5), plain.generate(TEXT, max_new_tokens=5))


def test_before_the_image_logits_are_the_base_models_and_from_it_on_they_are_not(adapted: Any, plain: Any) -> None:
    image = make_pixels(1)
    ours, base = adapted(ONE_IMAGE, images=image).logits[0], plain(ONE_IMAGE, images=image).logits[0]
    assert torch.equal(ours[:2], base[:2])
    assert bool((ours[2:] - base[2:]).abs().amax(-1).gt(1e-3).all())


def test_a_prompt_that_begins_with_its_image_is_answered_by_the_merged_weights(adapted: Any, everywhere: Any) -> None:
    ids, image = torch.tensor([[SLOT, 7, 9, 11]]), make_pixels(1)
    torch.testing.assert_close(adapted(ids, images=image).logits, everywhere(ids, images=image).logits)


@pytest.mark.parametrize("side", ["right", "left"])
def test_in_a_batch_each_row_is_adapted_as_alone(adapted: Any, side: str) -> None:
    adapted.config.tokenizer_padding_side = side
    try:
        batch = pad(ROWS)
        images = make_pixels(*TILES)
        whole = adapted(**batch, images=images, image_sizes=SIZES).logits
    finally:
        adapted.config.tokenizer_padding_side = "right"
    first = 0
    for row, logits in zip(ROWS, whole, strict=True):
        num = row.count(SLOT)
        own = {"images": images[first : first + num], "image_sizes": SIZES[first : first + num]} if num else {}
        first += num
        alone = adapted(torch.tensor([row]), **own).logits[0]
        shown = logits[: len(alone)] if side == "right" else logits[-len(alone) :]
        torch.testing.assert_close(shown, alone)


def test_answers_of_a_batch_are_those_of_its_rows(adapted: Any) -> None:
    batch, images = pad(ROWS), make_pixels(*TILES)
    answers = adapted.generate(batch["input_ids"], attention_mask=batch["attention_mask"], images=images,
                               image_sizes=SIZES, max_new_tokens=6, eos_token_id=None)  # fmt: skip
    first = 0
    for row, answer in zip(ROWS, answers, strict=True):
        num = row.count(SLOT)
        own = {"images": images[first : first + num], "image_sizes": SIZES[first : first + num]} if num else {}
        first += num
        alone = adapted.generate(torch.tensor([row]), **own, max_new_tokens=6, eos_token_id=None)
        assert answer.tolist() == alone[0].tolist()


def continue_greedily(model: Any, ids: torch.Tensor, images: Any, num_tokens: int) -> list[int]:
    """The answer without a cache: everything is computed again for each token."""
    answer: list[int] = []
    for _ in range(num_tokens):
        logits = model(torch.cat([ids, torch.tensor([answer], dtype=torch.long)], dim=1), images=images).logits
        answer.append(int(logits[0, -1].argmax()))
    return answer


def test_cached_decoding_gives_the_answer_of_whole_forward_passes(adapted: Any, plain: Any) -> None:
    image = make_pixels(1)
    ours = adapted.generate(ONE_IMAGE, images=image, max_new_tokens=8, eos_token_id=None)[0].tolist()
    assert ours == continue_greedily(adapted, ONE_IMAGE, image, 8)
    assert ours != plain.generate(ONE_IMAGE, images=image, max_new_tokens=8, eos_token_id=None)[0].tolist()


def test_a_loop_of_the_callers_own_stays_adapted(adapted: Any) -> None:
    image = make_pixels(1)
    outputs = adapted(ONE_IMAGE, images=image, use_cache=True)
    answer = [int(outputs.logits[0, -1].argmax())]
    for _ in range(3):
        outputs = adapted(torch.tensor([answer[-1:]]), past_key_values=outputs.past_key_values, use_cache=True)
        answer.append(int(outputs.logits[0, -1].argmax()))
    assert answer == continue_greedily(adapted, ONE_IMAGE, image, 4)


def test_text_that_a_cache_holds_may_be_followed_by_an_image_and_by_more_text(adapted: Any) -> None:
    image, cache = make_pixels(1), DynamicCache(config=adapted.config)
    adapted(ONE_IMAGE[:, :2], past_key_values=cache)
    after = adapted(ONE_IMAGE[:, 2:4], images=image, past_key_values=cache).logits
    last = adapted(ONE_IMAGE[:, 4:], past_key_values=cache).logits
    whole = adapted(ONE_IMAGE, images=image).logits
    torch.testing.assert_close(torch.cat([after, last], dim=1), whole[:, 2:])
    cache.crop(2 - cache.get_seq_length())  # to before the image, where the base model reads
    torch.testing.assert_close(
        adapted(TEXT[:, :1], past_key_values=cache).logits,
        adapted(torch.cat([ONE_IMAGE[:, :2], TEXT[:, :1]], dim=1)).logits[:, -1:],
    )


def test_beams_stay_adapted_in_a_batch(adapted: Any, plain: Any) -> None:
    batch, images = pad(ROWS[1:]), make_pixels(TILES[2])
    options = {"images": images, "image_sizes": SIZES[2:], "max_new_tokens": 5, "num_beams": 3, "eos_token_id": None}
    answers = adapted.generate(batch["input_ids"], attention_mask=batch["attention_mask"], **options)
    alone = adapted.generate(torch.tensor(ROWS[1:2]), **options)
    text = plain.generate(torch.tensor(ROWS[2:]), max_new_tokens=5, num_beams=3, eos_token_id=None)
    assert answers.tolist() == [alone[0].tolist(), text[0].tolist()]


def test_a_packed_row_is_adapted_sample_by_sample(adapted: Any) -> None:
    samples = [ROWS[0], [1, 8, 9], ROWS[1]]
    images = make_pixels(*TILES)
    row = torch.tensor([[token for sample in samples for token in sample]])
    positions = torch.tensor([[i for sample in samples for i in range(len(sample))]])
    packed = adapted(row, position_ids=positions, images=images, image_sizes=SIZES).logits[0]
    alone = [
        adapted(torch.tensor([samples[0]]), images=images[:2], image_sizes=SIZES[:2]).logits[0],
        adapted(torch.tensor([samples[1]])).logits[0],
        adapted(torch.tensor([samples[2]]), images=images[2:], image_sizes=SIZES[2:]).logits[0],
    ]
    torch.testing.assert_close(packed, torch.cat(alone))


@pytest.mark.parametrize("reentrant", [False, True])
def test_the_adapter_is_trained_alike_with_gradient_checkpointing(reentrant: bool) -> None:
    lesson, gradients = make_lesson(), []
    for checkpoints in (False, True):
        model = make_adapted().train().requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(".image_lora_" in name)
        if checkpoints:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
            model.enable_input_require_grads()
            for block in model.get_vision_tower().blocks_run:  # frozen, so that nothing of it is computed again
                block.gradient_checkpointing = False
        model(**lesson, logits_at_targets_only=True).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    assert len(gradients[0]) == 2 * 2 * 7
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_embeddings_that_come_alone_are_refused_and_merged_ones_are_not(adapted: Any) -> None:
    image = make_pixels(1)
    merged = adapted.prepare_inputs_labels_for_multimodal(ONE_IMAGE, None, None, None, None, image)[4]
    wanted = adapted(ONE_IMAGE, images=image).logits
    assert torch.equal(adapted(inputs_embeds=merged).logits, wanted)
    after = torch.tensor([[False, False, *[True] * (merged.shape[1] - 2)]])
    assert torch.equal(adapted(inputs_embeds=merged.clone(), after_image=after).logits, wanted)
    answer = adapted.generate(inputs_embeds=merged.clone(), after_image=after, max_new_tokens=4)
    assert answer.tolist() == adapted.generate(ONE_IMAGE, images=image, max_new_tokens=4).tolist()
    for run in (adapted, adapted.generate):
        with pytest.raises(UsageError, match="pass after_image"):
            run(inputs_embeds=merged.clone())
        with pytest.raises(UsageError, match="a row for each"):
            run(inputs_embeds=merged, after_image=after[0])


def test_other_layouts_have_no_image_adapter(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "model", mm_image_adapter=ADAPTER)
    tensors = load_file(tmp_path / "model/model.safetensors")
    linears = [name for name in tensors if re.search(r"model\.layers\..*_proj\.weight", name)]
    for name in linears:
        rows, columns = tensors[name].shape
        tensors[name.replace("weight", "image_lora_A.weight")] = torch.ones(3, columns)
        tensors[name.replace("weight", "image_lora_B.weight")] = torch.ones(rows, 3)
    save_file(tensors, tmp_path / "model/model.safetensors", {"format": "pt"})
    loaded = load_model(tmp_path / "model", device="cpu", dtype="float32")
    assert find_image_adapter(loaded.model) is not None
    for layout in ("hf", "gguf"):
        with pytest.raises(UsageError, match="image adapter"):
            convert(tmp_path / "model", tmp_path / layout, layout)


def test_a_quantized_layer_keeps_its_adapter(plain: Any) -> None:
    model, base = make_adapted(), make_model()
    quantize_linears(model, 8)
    quantize_linears(base, 8)
    assert torch.equal(model(TEXT).logits, base(TEXT).logits)
    linear = model.model.layers[0].mlp.up_proj
    x = torch.randn(1, 4, 48)
    with at_positions(torch.tensor([[False, True, True, True]])):
        y = linear(x)
    assert torch.equal(y[0, :1], linear(x)[0, :1])
    torch.testing.assert_close(y[0, 1:], nn.functional.linear(x, merged_weights(linear))[0, 1:])
