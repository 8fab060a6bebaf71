"""The engine follows each field of generation_config.json as ``generate`` does, and both name what they do not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import MinLengthLogitsProcessor

from llava import load_model
from llava.answer import ask, place_images, start_conversation
from llava.backends.answerer import Answerer
from llava.engine.sampler import Sampler
from llava.errors import CheckpointError, Notice, UsageError
from llava.image.source import LoadedImage, load_image
from llava.model.generation import (
    FIELDS,
    EndsNoSooner,
    How,
    find_settings,
    is_set,
    make_processors,
    read_generation_config,
    write_for_generate,
)
from llava.sampling import Sampling

END = 2  # what the tiny model's answers end with

# A value of each field that goes through a processor, and with which answers are other ones.
FOLLOWED: dict[str, Any] = {
    "bad_words_ids": [],  # filled in by the test, from what the answer begins with
    "begin_suppress_tokens": [],
    "epsilon_cutoff": 0.004,
    "eta_cutoff": 0.004,
    "exponential_decay_length_penalty": [3, 50.0],
    "forced_bos_token_id": 320,
    "forced_eos_token_id": END,
    "min_length": 0,
    "min_new_tokens": 9,
    "no_repeat_ngram_size": 1,
    "remove_invalid_values": True,
    "renormalize_logits": True,
    "sequence_bias": [[[330], 40.0], [[330, 331], 40.0]],
    "suppress_tokens": [],
    "top_h": 0.4,
    "typical_p": 0.6,
    "watermarking_config": {"bias": 6.0, "greenlist_ratio": 0.3, "context_width": 1},
}


@pytest.fixture(scope="module")
def loaded(next_folder: Path) -> Any:
    return load_model(str(next_folder), device="cpu", dtype="float32")


@pytest.fixture
def image(photo: Path) -> LoadedImage:
    return load_image(photo)


@pytest.fixture
def say(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both ways' answers to a question with these fields set; they have to be equal."""
    backend = Answerer(loaded)

    def say(fields: dict[str, Any], image: LoadedImage | None = None, **settings: Any) -> Any:
        config = read_generation_config({"eos_token_id": END, "pad_token_id": 0, **fields}, "file", loaded.model)
        monkeypatch.setattr(loaded.model, "generation_config", config)
        conversation = start_conversation(loaded)
        images = [image] if image is not None else []
        conversation.append_message(conversation.roles[0], place_images(loaded, "What is it?", len(images)))
        conversation.append_message(conversation.roles[1], None)
        asked = (conversation, images, Sampling(**{"max_new_tokens": 14, **settings}))
        slow = backend._generate(backend.prepare(*asked), 0.0, None)
        if asked[2].num_beams > 1:
            return slow
        fast = backend.answer(*asked)
        assert backend._engine is not None
        for name in ("text", "new_tokens", "finished", "finish_reason", "stop_text", "first_token"):
            assert getattr(fast, name) == getattr(slow, name), name
        return fast

    return say


def first_tokens(say: Any, count: int) -> list[int]:
    """What a plain answer begins with."""
    ids: list[int] = []
    for number in range(count):
        ids.append(say({}, max_new_tokens=1, suppress_tokens=tuple(ids)).first_token)
        assert len(set(ids)) == number + 1
    return ids


def test_the_table_has_every_field_of_the_installed_transformers() -> None:
    assert set(FIELDS) == set(vars(GenerationConfig()))
    assert all(not is_set(name, value) for name, (_, value) in FIELDS.items())
    assert not any(is_set(name, value) for name, value in vars(GenerationConfig()).items())
    defaults = GenerationConfig._get_default_generation_params()
    assert [name for name, value in defaults.items() if is_set(name, value)] == []
    assert {name for name, (how, _) in FIELDS.items() if how is How.PROCESSOR} == set(FOLLOWED)


def complete(name: str, say: Any) -> dict[str, Any]:
    """The field with its value, and whatever makes it matter."""
    fields = {name: FOLLOWED[name]}
    if not FOLLOWED[name]:
        first = first_tokens(say, 3)
        prompt_tokens = say({}, max_new_tokens=1).prompt_tokens
        fields[name] = {"bad_words_ids": [[token] for token in first], "min_length": prompt_tokens + 5}.get(name, first)
    if name in ("min_length", "min_new_tokens"):
        fields |= {"sequence_bias": [[[END], 100.0]]}  # else it would not end at all
    if name == "exponential_decay_length_penalty":
        fields |= {"sequence_bias": [[[END], 0.001]]}
    return fields


@pytest.mark.parametrize("name", FOLLOWED)
def test_engine_and_generate_say_the_same_greedily(image: LoadedImage, say: Any, name: str) -> None:
    fields = complete(name, say)
    plain = say({**fields, name: None})
    changed = say(fields)
    say(fields, image)
    say(fields, image, num_beams=2)
    # Renormalizing changes no choice, healthy logits are not mended, and warpers wait for words to be drawn.
    changes_nothing = {
        "renormalize_logits",
        "remove_invalid_values",
        "epsilon_cutoff",
        "eta_cutoff",
        "top_h",
        "typical_p",
    }
    assert (changed.text == plain.text and changed.new_tokens == plain.new_tokens) == (name in changes_nothing)


@pytest.mark.parametrize("penalty", [None, 1.3])
@pytest.mark.parametrize("numbers", [{}, {"top_k": 40, "top_p": 0.9, "min_p": 0.01}])
@pytest.mark.parametrize("name", FOLLOWED)
def test_words_are_drawn_from_what_generate_draws_from(
    loaded: Any, say: Any, monkeypatch: pytest.MonkeyPatch, name: str, numbers: dict[str, Any], penalty: float | None
) -> None:
    model = loaded.model
    fields = {"eos_token_id": END, "pad_token_id": 0, **complete(name, say)}
    monkeypatch.setattr(model, "generation_config", read_generation_config(fields, "file", model))
    sampling = Sampling(temperature=1.7, max_new_tokens=8, repetition_penalty=penalty, **numbers)
    values = find_settings(model, sampling, loaded.tokenizer)
    prompt = torch.full((1, values["min_length"] - 5 if "min_length" in values else 4), 300)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Passing `(repetition_penalty|no_repeat_ngram_size)` with")
        warnings.filterwarnings("ignore", "Unfeasible length constraints")
        said = model.generate(
            prompt,
            max_new_tokens=sampling.max_new_tokens,
            **{**sampling.for_generate(), **write_for_generate(model.generation_config, values)},
            output_scores=True,
            output_logits=True,
            return_dict_in_generate=True,
        )
    sampler = Sampler(sampling, processors=make_processors(model, values, sampling, [END], prompt.shape[1]))
    for token, logits, expected in zip(said.sequences[0].tolist(), said.logits, said.scores, strict=True):
        torch.testing.assert_close(sampler.process(logits[0].float()).softmax(-1), expected[0].softmax(-1))
        sampler.counts[token] += 1
        sampler._output_ids.append(token)


@pytest.mark.parametrize("end_ids", [[2], [0, 3], [1, 99]])
def test_an_answer_ends_no_sooner_than_by_the_processor_of_transformers(loaded: Any, end_ids: list[int]) -> None:
    ids = torch.tensor(end_ids)
    theirs, ours = MinLengthLogitsProcessor(3, ids), EndsNoSooner(3, ids)
    scores = torch.randn(1, 5)
    kept = scores.clone()
    for count in range(5):
        said = torch.ones(1, count, dtype=torch.long)
        assert torch.equal(ours(said, scores), theirs(said, scores))
    assert torch.equal(scores, kept)
    processors = make_processors(loaded.model, {"min_new_tokens": 3}, Sampling(), end_ids, 10)
    assert processors is not None
    assert [type(one) for one in processors.before] == [EndsNoSooner]


def test_a_field_that_changes_nothing_leaves_the_fast_path(loaded: Any) -> None:
    neutral = {"min_length": 3, "no_repeat_ngram_size": 0, "suppress_tokens": [], "typical_p": 1.0}
    values = find_settings(
        type("Model", (), {"generation_config": GenerationConfig(**neutral), "config": loaded.model.config}),
        Sampling(),
        loaded.tokenizer,
    )
    assert make_processors(loaded.model, values, Sampling(), [END], 10) is None
    assert Sampler(Sampling()).is_plain


def test_several_fields_together_and_a_samplings_own(loaded: Any, image: LoadedImage, say: Any) -> None:
    fields = {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2, "bad_words_ids": [[310]], "suppress_tokens": [311]}
    together = say(fields, image, max_new_tokens=40)
    assert say({**fields, "renormalize_logits": True}, image, max_new_tokens=40).text == together.text
    plain = say({}, image, max_new_tokens=40)
    assert together.text != plain.text
    assert say(fields, image, max_new_tokens=40, no_repeat_ngram_size=0, repetition_penalty=1.0).text != together.text
    assert say({}, image, max_new_tokens=40, no_repeat_ngram_size=1).text != plain.text
    bad = plain.text[0]
    assert bad not in say({}, image, bad_words=(bad,)).text
    ends_at_once = {"sequence_bias": [[[END], 100.0]]}
    assert say(ends_at_once, image).new_tokens == 1
    assert say(ends_at_once, image, min_new_tokens=5).new_tokens == 6
    with pytest.raises(UsageError, match="suppress_tokens holds 400, but the model has only 400 tokens"):
        say({}, image, suppress_tokens=(400,))
    with pytest.raises(UsageError, match="too many words and tokens are barred"):
        Answerer(loaded).answer(
            start(loaded), [], Sampling(suppress_tokens=tuple(range(loaded.model.config.vocab_size)))
        )


@pytest.mark.parametrize("fields", [{"min_length": 0}, {"repetition_penalty": 2}, {"repetition_penalty": 1}])
@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_number_without_a_decimal_point_and_one_that_asks_for_nothing_are_taken(
    say: Any, fields: dict[str, Any], num_beams: int
) -> None:
    assert say(fields, num_beams=num_beams, max_new_tokens=3).new_tokens == 3


def start(loaded: Any) -> Any:
    conversation = start_conversation(loaded)
    conversation.append_message(conversation.roles[0], "What?")
    conversation.append_message(conversation.roles[1], None)
    return conversation


def test_stop_strings_end_an_answer_with_and_without_beams(loaded: Any, image: LoadedImage, say: Any) -> None:
    plain = say({}, image)
    stop = plain.text[3:5]
    stopped = say({"stop_strings": [stop]}, image)
    assert stopped.text == plain.text[: plain.text.index(stop)].rstrip()
    assert (stopped.finish_reason, stopped.stop_text, stopped.finished) == ("stop_string", stop, True)
    assert say({"stop_strings": stop}, image).text == stopped.text
    beams = say({}, image, num_beams=2).text
    stop = beams[3:5]
    assert stop not in say({"stop_strings": stop, "length_penalty": 0.5}, image, num_beams=2).text


def test_an_answer_ends_when_its_time_is_over(loaded: Any, image: LoadedImage, say: Any) -> None:
    reply = say({"max_time": 1e-9}, image)
    assert (reply.new_tokens, reply.finish_reason, reply.finished) == (1, "time", False)
    assert "max_time" in reply.explain()


UNFOLLOWED: dict[str, Any] = {
    "assistant_confidence_threshold": 0.9,
    "assistant_early_exit": 4,
    "assistant_ensemble_weight": 0.5,
    "assistant_lookbehind": 5,
    "cache_config": {"backend": "quanto"},
    "cache_implementation": "quantized",
    "compile_config": {"a": 1},
    "constraints": [1],
    "continuous_batching_config": {"a": 1},
    "diversity_penalty": 1.0,
    "dola_layers": "high",
    "encoder_no_repeat_ngram_size": 2,
    "encoder_repetition_penalty": 1.5,
    "force_words_ids": [[1]],
    "guidance_scale": 1.5,
    "is_assistant": True,
    "low_memory": True,
    "max_cache_len": 10,
    "max_matching_ngram_size": 3,
    "num_assistant_tokens": 7,
    "num_assistant_tokens_schedule": "heuristic",
    "num_beam_groups": 2,
    "num_return_sequences": 3,
    "output_attentions": True,
    "output_hidden_states": True,
    "output_logits": True,
    "output_scores": True,
    "penalty_alpha": 0.6,
    "prefill_chunk_size": 8,
    "prompt_lookup_num_tokens": 4,
    "return_dict_in_generate": True,
    "speculation_type": "dflash",
    "target_lookbehind": 3,
    "token_healing": True,
    "use_mtp": True,
}


def test_every_field_that_nobody_follows_is_tried() -> None:
    assert set(UNFOLLOWED) == {name for name, (how, _) in FIELDS.items() if how is How.NOBODY}


@pytest.mark.parametrize("name", UNFOLLOWED)
def test_what_nobody_follows_is_named_once_and_changes_nothing(
    loaded: Any, image: LoadedImage, say: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = say({}, image)
    fields = {name: UNFOLLOWED[name], **({"top_k": 4, "do_sample": True} if name == "penalty_alpha" else {})}
    assert say(fields, image).text == plain.text
    assert say(fields, image, num_beams=2).text == say({}, image, num_beams=2).text
    say(fields)  # sets the configuration
    assert f"{name}={UNFOLLOWED[name]!r}"[:50] in (Answerer(loaded).notice or "")


def test_asking_warns_once_of_all_that_is_left_to_the_caller(next_folder: Path) -> None:
    mine = load_model(str(next_folder), device="cpu", dtype="float32")
    said = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "num_beams": 4, "max_new_tokens": 99, "chat": "x"}
    mine.model.generation_config = read_generation_config({"eos_token_id": END, **said}, "file", mine.model)
    with pytest.warns(Notice) as caught:
        ask(mine, "Why?", sampling=Sampling(max_new_tokens=1))
    assert [str(one.message) for one in caught] == [
        "Of the checkpoint's generation settings chat='x' is unknown; do_sample=True, max_new_tokens=99, num_beams=4, "
        "temperature=0.6 and top_p=0.9 are left to the caller (greedy unless asked)."
    ]
    ask(mine, "Why?", sampling=Sampling(max_new_tokens=1))


WRONG: list[tuple[str, Any, str]] = [
    ("bad_words_ids", [5], "list of lists"),
    ("bad_words_ids", [[-1]], "positive integers"),
    ("bad_words_ids", [[100000]], "vocabulary size"),
    ("begin_suppress_tokens", 7, "a list of token ids"),
    ("bos_token_id", {}, "a token id"),
    ("do_sample", "yes", "true or false"),
    ("early_stopping", "soon", "never"),
    ("early_stopping", [], "never"),
    ("eos_token_id", "</s>", "a token id"),
    ("eos_token_id", 10**30, "a token id"),
    ("epsilon_cutoff", 7, "from 0 to 1"),
    ("eta_cutoff", -0.1, "from 0 to 1"),
    ("exponential_decay_length_penalty", 5, ""),
    ("exponential_decay_length_penalty", ["a", "b"], ""),
    ("exponential_decay_length_penalty", [1, float("nan")], "NaN"),
    ("forced_bos_token_id", [1], "a token id"),
    ("forced_eos_token_id", 10**6, ""),
    ("length_penalty", "long", "a number"),
    ("max_new_tokens", 0, "greater than 0"),
    ("max_time", 0, "above 0"),
    ("max_time", "1s", "above 0"),
    ("min_length", -1, "at least 0"),
    ("min_new_tokens", 2.5, "whole number"),
    ("no_repeat_ngram_size", "3", "whole number"),
    ("no_repeat_ngram_size", -2, "at least 0"),
    ("pad_token_id", "x", "a token id"),
    ("repetition_penalty", 0, "above 0"),
    ("repetition_penalty", 10**30, "above 0"),
    ("repetition_penalty", float("nan"), "above 0"),
    ("sequence_bias", {"a": 1}, ""),
    ("sequence_bias", [[[1], "much"]], ""),
    ("sequence_bias", [[[1], float("inf")]], "infinity"),
    ("stop_strings", [""], "not empty"),
    ("stop_strings", 5, "a string"),
    ("suppress_tokens", 5, "a list"),
    ("suppress_tokens", ["a"], "a list"),
    ("temperature", "hot", "a number"),
    ("top_h", 0, ""),
    ("typical_p", -1, "from 0 to 1"),
    ("watermarking_config", {"seeding_scheme": "none"}, "seeding_scheme"),
    ("watermarking_config", {"colour": "green"}, ""),
    ("watermarking_config", 5, ""),
]


@pytest.mark.parametrize(("name", "value", "says"), WRONG)
def test_a_value_that_is_wrong_is_named_with_its_file(loaded: Any, name: str, value: Any, says: str) -> None:
    with pytest.raises(CheckpointError, match=r"^folder/generation_config\.json") as refused:
        read_generation_config({name: value}, "folder/generation_config.json", loaded.model)
    assert name in str(refused.value)
    assert says in str(refused.value)
