"""What Transformers offers around ``generate`` and ``forward`` works on our classes as on its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, TextIteratorStreamer

from llava.errors import UsageError
from llava.model.builder import load_pretrained_model
from tests.tiny import ANYRES, FAMILIES, SIZES, SLOT, SQUARE, make_model, make_pixels

IDS = torch.tensor([[1, 5, SLOT, 7, 9]])
NUM_NEW = 5
ASKED: dict[str, Any] = {
    "images": make_pixels(5),
    "image_sizes": SIZES[:1],
    "max_new_tokens": NUM_NEW,
    "do_sample": False,
    "eos_token_id": None,
}


def log_p_of(model: Any, answer: torch.Tensor) -> torch.Tensor:
    """log p of each token of an answer, in one forward pass over the prompt and all of it."""
    ids = torch.cat([IDS, answer[None]], dim=1)
    with torch.no_grad():
        logits = model(input_ids=ids, images=ASKED["images"], image_sizes=ASKED["image_sizes"]).logits[0]
    log_p = logits[-len(answer) - 1 : -1].log_softmax(-1)
    return log_p[torch.arange(len(answer)), answer]


@pytest.mark.parametrize("skip_prompt", [False, True])
def test_an_answer_streams_as_text_from_another_thread(skip_prompt: bool, next_checkpoint: Path) -> None:
    tokenizer, model, _, _ = load_pretrained_model(next_checkpoint, device="cpu")
    ids = torch.tensor([[1, 300, SLOT, 301]])
    arguments = {"images": make_pixels(5), "image_sizes": SIZES[:1], "max_new_tokens": 12, "do_sample": False}
    expected = tokenizer.decode(model.generate(ids, **arguments)[0], skip_special_tokens=True)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=skip_prompt, timeout=600, skip_special_tokens=True)
    thread = Thread(target=model.generate, args=(ids,), kwargs={**arguments, "streamer": streamer})
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces) == expected
    assert sum(map(bool, pieces)) > 1, "it comes in pieces"


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_logits_of_a_forward_pass(family: str) -> None:
    model = make_model(family)
    out = model.generate(IDS, **ASKED, return_dict_in_generate=True, output_scores=True, output_logits=True)
    assert out.sequences.shape == (1, NUM_NEW)
    assert len(out.scores) == NUM_NEW
    log_p = torch.stack([scores[0].log_softmax(-1) for scores in out.scores])
    picked = log_p[torch.arange(NUM_NEW), out.sequences[0]]
    torch.testing.assert_close(picked, log_p_of(model, out.sequences[0]), atol=1e-4, rtol=1e-4)
    assert torch.equal(torch.stack(out.logits), torch.stack(out.scores))


def test_beams_are_ranked_by_the_probability_that_a_forward_pass_gives_them() -> None:
    model = make_model()
    out = model.generate(
        IDS, **ASKED, num_beams=4, num_return_sequences=3, return_dict_in_generate=True, output_scores=True
    )
    assert out.sequences.shape == (3, NUM_NEW)
    assert len({tuple(row) for row in out.sequences.tolist()}) == 3
    totals = torch.stack([log_p_of(model, row).sum() for row in out.sequences])
    torch.testing.assert_close(out.sequences_scores * NUM_NEW, totals, atol=1e-4, rtol=1e-4)
    assert totals.tolist() == sorted(totals.tolist(), reverse=True)
    greedy = log_p_of(model, model.generate(IDS, **ASKED)[0]).sum()
    assert totals[0] >= greedy - 1e-4
    steps = model.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    torch.testing.assert_close(steps.sum(1), totals, atol=1e-4, rtol=1e-4)


class Dictation(LogitsProcessor):
    """Allows one token at each step, and remembers what it was shown."""

    def __init__(self, words: list[int]) -> None:
        self.words = words
        self.shown: list[list[int]] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.shown.append(input_ids[0].tolist())
        allowed = torch.full_like(scores, -torch.inf)
        allowed[:, self.words[len(self.shown) - 1]] = 0
        return allowed  # type: ignore[return-value]


class AfterTwo(StoppingCriteria):
    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= 2, dtype=torch.bool)  # type: ignore[return-value]


def test_logits_processors_and_stopping_criteria_see_new_tokens_only() -> None:
    model = make_model()
    dictation = Dictation([11, 12, 13, 14, 15])
    answer = model.generate(IDS, **ASKED, logits_processor=LogitsProcessorList([dictation]))
    assert answer.tolist() == [[11, 12, 13, 14, 15]]
    assert dictation.shown == [[], [11], [11, 12], [11, 12, 13], [11, 12, 13, 14]]
    whole = model.generate(IDS, **ASKED)
    assert torch.equal(model.generate(IDS, **ASKED, stopping_criteria=[AfterTwo()]), whole[:, :2])


def test_an_untied_head_stays_untied_and_a_tied_one_tied(next_checkpoint: Path) -> None:
    model = load_pretrained_model(next_checkpoint, device="cpu")[1]
    before = model.lm_head.weight.clone()
    model.tie_weights()
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, before)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    for family in FAMILIES:
        for tied in (False, True):
            small = make_model(family, tie_word_embeddings=tied)
            small.tie_weights()
            assert (small.lm_head.weight is small.model.embed_tokens.weight) is tied, (family, tied)


def test_a_mask_of_ones_is_what_no_mask_means() -> None:
    model = make_model()
    ones = torch.ones_like(IDS)
    seen = {key: ASKED[key] for key in ("images", "image_sizes")}
    assert torch.equal(model.generate(IDS, **ASKED), model.generate(IDS, attention_mask=ones, **ASKED))
    assert torch.equal(model.generate(IDS, **ASKED), model.generate(IDS, attention_mask=None, **ASKED))
    torch.testing.assert_close(
        model(input_ids=IDS, **seen).logits, model(input_ids=IDS, attention_mask=ones, **seen).logits
    )


def test_square_images_need_no_sizes_and_come_in_any_form() -> None:
    model = make_model(**SQUARE)
    ids = torch.tensor([[1, SLOT, 5, SLOT, 7]])
    first, second = make_pixels(1, 1)
    answers = [
        model.generate(ids, images=images, max_new_tokens=NUM_NEW, do_sample=False).tolist()
        for images in (
            torch.cat([first, second]),
            [first[0], second[0]],
            [first, second],
            [first, second[0]],
            torch.stack([first, second]),
        )
    ]
    assert all(answer == answers[0] for answer in answers)
    swapped = model.generate(ids, images=[second, first], max_new_tokens=NUM_NEW, do_sample=False).tolist()
    assert swapped != answers[0]


def test_several_tiles_without_their_size_are_refused() -> None:
    model = make_model(**ANYRES)
    with pytest.raises(UsageError, match="without its size"):
        model.generate(IDS, images=ASKED["images"], max_new_tokens=2)


def test_others_may_register_our_names_before_and_after_us(next_checkpoint: Path) -> None:
    code = f"""
        from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config

        def register(base, name, model):
            config = type("Other", (base,), {{"model_type": name}})
            AutoConfig.register(name, config, exist_ok=True)
            AutoModelForCausalLM.register(config, type("OtherModel", (model,), {{"config_class": config}}))

        def register_all():
            register(LlamaConfig, "llava", LlamaForCausalLM)
            register(LlamaConfig, "llava_llama", LlamaForCausalLM)
            register(Qwen2Config, "llava_qwen", LlamaForCausalLM)

        register_all()
        from llava.model import LlavaConfig, LlavaLlamaForCausalLM, LlavaQwenConfig
        from llava.model.builder import load_pretrained_model

        assert type(AutoConfig.for_model("llava_llama")) is LlavaConfig
        assert type(AutoConfig.for_model("llava_qwen")) is LlavaQwenConfig
        assert type(load_pretrained_model({str(next_checkpoint)!r}, device="cpu")[1]) is LlavaLlamaForCausalLM
        register_all()
        model = load_pretrained_model({str(next_checkpoint)!r}, device="cpu")[1]
        assert type(model) is LlavaLlamaForCausalLM
        assert type(model.config) is LlavaConfig
        assert type(LlavaLlamaForCausalLM.from_pretrained({str(next_checkpoint)!r}).config) is LlavaConfig
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
