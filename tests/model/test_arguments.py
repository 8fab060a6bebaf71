"""What callers hand to ``forward`` and ``generate``: right calls agree with the slow way, wrong ones say what to do."""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from llava.errors import UsageError
from llava.model.llava import LlavaLlamaForCausalLM
from tests.tiny import SLOT, SQUARE, make_model, make_pixels, pad

IDS = torch.tensor([[1, 5, SLOT, 7, 8]])
PIXELS = make_pixels(1)[0]
GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(**SQUARE)


def answer_by_hand(model: Any, ids: torch.Tensor, **first: Any) -> torch.Tensor:
    """Greedy tokens from a loop in the style of contrastive decoding: Transformers' own steps around ``forward``."""
    kwargs = {"attention_mask": torch.ones_like(ids), "use_cache": True, **first}
    new = []
    for _ in range(5):
        inputs = model.prepare_inputs_for_generation(ids, **kwargs)
        with torch.no_grad():
            outputs = model(**inputs, return_dict=True)
        new.append(outputs.logits[:, -1].argmax(-1, keepdim=True))
        ids = torch.cat([ids, new[-1]], dim=1)
        kwargs = model._update_model_kwargs_for_generation(outputs, kwargs, is_encoder_decoder=False)
    return torch.cat(new, dim=1)


@pytest.mark.parametrize("num_rows", [1, 3])
def test_a_loop_whose_mask_counts_an_image_as_one_answers_as_generate(model: Any, num_rows: int) -> None:
    ids, pixels = IDS.repeat(num_rows, 1), PIXELS.repeat(num_rows, 1, 1, 1)
    expected = model.generate(ids, images=pixels, **GREEDY)
    assert torch.equal(answer_by_hand(model, ids, images=pixels), expected)


def test_a_loop_over_text_or_embeddings_answers_as_generate(model: Any) -> None:
    text = torch.tensor([[1, 5, 7, 8]])
    assert torch.equal(answer_by_hand(model, text), model.generate(text, **GREEDY))
    embeds = model.prepare_inputs_labels_for_multimodal(IDS, None, None, None, None, PIXELS)[4]
    nothing = torch.zeros(1, 0, dtype=torch.long)
    by_hand = answer_by_hand(model, nothing, inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]))
    assert torch.equal(by_hand, model.generate(IDS, images=PIXELS, **GREEDY))


@pytest.mark.parametrize("mask", [None, torch.ones(2, 6), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1]])])
def test_a_mask_that_leaves_out_the_merges_padding_is_refused(model: Any, mask: torch.Tensor | None) -> None:
    batch = pad([[1, 5, SLOT, 7, 8], [1, 9, 10]])
    first = model(**batch, images=PIXELS, use_cache=True)
    next_ids = torch.tensor([[9], [34]])
    with pytest.raises(UsageError, match=r"20 positions, images and padding included, and 1 more come: pass a mask"):
        model(input_ids=next_ids, past_key_values=first.past_key_values, attention_mask=mask)
    merged = model.prepare_inputs_labels_for_multimodal(
        batch["input_ids"], None, batch["attention_mask"], None, None, PIXELS
    )[2]
    whole = torch.cat([merged, torch.ones(2, 1, dtype=merged.dtype)], dim=1)
    model(input_ids=next_ids, past_key_values=first.past_key_values, attention_mask=whole)


def test_a_short_mask_with_padding_of_its_own_is_refused(model: Any) -> None:
    first = model(input_ids=IDS, images=PIXELS, use_cache=True)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1]])
    with pytest.raises(UsageError, match="attention_mask covers 6 positions, but past_key_values hold 20"):
        model(input_ids=torch.tensor([[9]]), past_key_values=first.past_key_values, attention_mask=mask)


def test_a_conversation_goes_on_from_its_cache_and_says_what_it_needs_for_it(model: Any) -> None:
    first = model.generate(IDS, images=PIXELS, return_dict_in_generate=True, **GREEDY)
    longer = torch.cat([IDS, first.sequences, torch.tensor([[9, 10]])], dim=1)
    expected = model.generate(longer, images=PIXELS, **GREEDY)
    cache = copy.deepcopy(first.past_key_values)
    assert torch.equal(model.generate(longer, images=PIXELS, past_key_values=cache, **GREEDY), expected)
    with pytest.raises(UsageError, match="hold 24 positions, but the prompt has 2, images included: give the whole"):
        model.generate(longer[:, -2:], past_key_values=first.past_key_values, **GREEDY)


@pytest.mark.parametrize("side", ["left", "right"])
def test_embeddings_that_the_caller_merged_are_answered_as_ids(side: str) -> None:
    model = make_model(**SQUARE, tokenizer_padding_side=side)
    batch = pad([[1, 5, SLOT, 7, 8], [1, SLOT, 6]])
    pixels = PIXELS.repeat(2, 1, 1, 1)
    expected = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], images=pixels, **GREEDY)

    def generate(self: Any, inputs: torch.Tensor, images: Any, attention_mask: Any, **kwargs: Any) -> Any:
        _, positions, mask, _, embeds, _ = self.prepare_inputs_labels_for_multimodal(
            inputs, None, attention_mask, None, None, images
        )
        return super(LlavaLlamaForCausalLM, self).generate(
            position_ids=positions, attention_mask=mask, inputs_embeds=embeds, **kwargs
        )

    model.generate = MethodType(generate, model)
    answer = model.generate(batch["input_ids"], images=pixels, attention_mask=batch["attention_mask"], **GREEDY)
    assert torch.equal(answer, expected)


def test_positions_of_embeddings_are_the_callers(model: Any) -> None:
    """As pruning leaves them: those of the tokens that stay."""
    embeds = model.prepare_inputs_labels_for_multimodal(IDS, None, None, None, None, PIXELS)[4]
    kept = torch.tensor([0, 1, 2, 5, 9, 18, 19])
    seen: list[torch.Tensor] = []
    handle = model.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    model.generate(inputs_embeds=embeds[:, kept], position_ids=kept[None], **GREEDY)
    handle.remove()
    assert seen[0].tolist() == [kept.tolist()]
    assert seen[1].flatten().tolist() == [20]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "ids in a list": ({"inputs": IDS.tolist()}, "input_ids is a list; it has to be a tensor"),
    "one row without a batch": ({"inputs": IDS[0]}, r"shape \[5\].*unsqueeze\(0\)"),
    "no ids": ({"inputs": torch.zeros(1, 0, dtype=torch.long)}, r"shape \[1, 0\]"),
    "no rows": ({"inputs": torch.zeros(0, 3, dtype=torch.long)}, r"shape \[0, 3\]"),
    "ids with a point": ({"inputs": IDS.float()}, r"torch.float32; token ids are integers: input_ids.long\(\)"),
    "a token without an embedding": ({"inputs": torch.tensor([[1, SLOT, 500]])}, "token id 500, .* from 0 to 119"),
    "... in text alone": ({"inputs": torch.tensor([[1, 500]]), "images": None}, r"resize_token_embeddings\(len"),
    "a label among the ids": ({"inputs": torch.tensor([[1, SLOT, -100]])}, "token id -100"),
    "a merged mask": ({"attention_mask": torch.ones(1, 20)}, r"attention_mask has the shape \[1, 20\]"),
    "an image without a batch": ({"images": PIXELS[0]}, r"shape \[3, 28, 28\].*unsqueeze\(0\) for one"),
    "an array": ({"images": PIXELS.numpy()}, "images is a ndarray; llava.mm_utils.process_images makes"),
    "arrays": ({"images": [PIXELS[0].numpy()]}, r"images\[0\] is a ndarray; llava.mm_utils.process_images"),
    "Pillow's": ({"images": [Image.new("RGB", (28, 28))]}, r"images\[0\] is a Image; llava.mm_utils.process"),
    "a flat image": ({"images": [PIXELS[0, 0]]}, r"images\[0\] has the shape \[28, 28\]"),
    "grey images": ({"images": PIXELS[:, :1]}, r"takes pixels \[tiles, 3, S, S\], but got \[1, 1, 28, 28\]"),
    "a bare size": ({"images": [PIXELS], "image_sizes": (50, 40)}, r"image_sizes is \(50, 40\); it has to be"),
    "no room": ({"max_length": 20, "max_new_tokens": None}, "max_length is 20, but the prompt alone takes 20"),
    "no room in a config": (
        {"generation_config": GenerationConfig(max_length=9), "max_new_tokens": None},
        "max_length is 9, but .* say max_new_tokens",
    ),
    "an assistant": ({"assistant_model": object()}, "assistant_model cannot be used: .* prompt_lookup_num_tokens"),
    "its own first layers": ({"assistant_early_exit": 1}, "assistant_early_exit cannot be used"),
    "chunks": ({"prefill_chunk_size": 4}, "prefill_chunk_size cannot be used"),
    "no beams": ({"num_beams": 0}, "num_beams is 0; it has to be at least 1"),
    "nothing to say": ({"suppress_tokens": list(range(120))}, "bar all 120 tokens of the model"),
    "no word that is good": (
        {"bad_words_ids": [[token] for token in range(100)], "suppress_tokens": torch.arange(100, 120)},
        "bar all 120 tokens of the model",
    ),
    "a dict for a config": ({"generation_config": {}}, "generation_config is a dict"),
    "both": ({"inputs_embeds": torch.zeros(1, 3, 48)}, "either token ids"),
    "neither": ({"inputs": None}, "either token ids"),
    "embeddings and images": ({"inputs": None, "inputs_embeds": torch.zeros(1, 3, 48)}, "images came with"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_of_generate_is_named_with_what_to_do(model: Any, case: str) -> None:
    changes, said = WRONG[case]
    if case == "a bare size":  # read where tiles are merged
        model = make_model()
    with pytest.raises(UsageError, match=said):
        model.generate(**{"inputs": IDS, "images": PIXELS, **GREEDY, **changes})
    # Nothing is left behind that changes the next answer.
    assert model.config.num_hidden_layers == 2


def test_ids_that_the_mask_leaves_out_may_be_anything(model: Any) -> None:
    ids = torch.tensor([[1, 5, SLOT, 7, 8, 500, -100]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    expected = model.generate(IDS, images=PIXELS, **GREEDY)
    assert torch.equal(model.generate(ids, attention_mask=mask, images=PIXELS, **GREEDY), expected)


def test_guessing_from_the_answer_itself_changes_nothing(model: Any) -> None:
    expected = model.generate(IDS, images=PIXELS, **{**GREEDY, "max_new_tokens": 16})
    guessed = model.generate(IDS, images=PIXELS, prompt_lookup_num_tokens=3, **{**GREEDY, "max_new_tokens": 16})
    assert torch.equal(guessed, expected)
