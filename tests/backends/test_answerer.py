"""The answerer: engine or ``generate``, with equal answers."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llava import load_model
from llava.answer import place_images, start_conversation
from llava.backends.answerer import Answerer
from llava.engine.engine import Engine
from llava.errors import ContextTooLong, UsageError
from llava.image.source import LoadedImage, load_image
from llava.sampling import Sampling


@pytest.fixture(scope="module")
def loaded(next_folder: Path) -> Any:
    return load_model(str(next_folder), device="cpu", dtype="float32")


@pytest.fixture
def image(photo: Path) -> LoadedImage:
    return load_image(photo)


def conversation(loaded: Any, question: str, num_images: int = 1) -> Any:
    begun = start_conversation(loaded)
    begun.append_message(begun.roles[0], place_images(loaded, question, num_images))
    begun.append_message(begun.roles[1], None)
    return begun


def test_what_is_no_text_is_refused_before_a_tokenizer_sees_it(loaded: Any) -> None:
    with pytest.raises(UsageError, match="The conversation is not valid UTF-8"):
        Answerer(loaded).answer(conversation(loaded, "What \udcff?", 0), [], Sampling())


def forbid_generate(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("generate was asked")

    refuse.__module__ = type(loaded.model).generate.__module__
    monkeypatch.setattr(type(loaded.model), "generate", refuse)


def test_both_ways_say_the_same(loaded: Any, image: LoadedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Answerer(loaded)
    asked = (conversation(loaded, "What is it?"), [image], Sampling(max_new_tokens=14))
    pieces: list[str] = []
    slow = backend._generate(backend.prepare(*asked), 0.0, pieces.append)
    assert "".join(pieces) == slow.text
    forbid_generate(loaded, monkeypatch)
    fast = backend.answer(*asked)
    for name in ("text", "prompt_tokens", "cut_tokens", "image_positions", "new_tokens", "finished"):
        assert getattr(fast, name) == getattr(slow, name)
    assert fast.new_tokens == 14
    assert 0 < fast.first_token_s < fast.total_s
    many = backend.answer_all([asked, (conversation(loaded, "Why?", 0), [], Sampling(max_new_tokens=3)), asked])
    assert [answer.new_tokens for answer in many] == [14, 3, 14]


def test_both_ways_take_a_penalty_and_the_checkpoints_own(
    loaded: Any, image: LoadedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Answerer(loaded)

    def say_both(**settings: Any) -> str:
        asked = (conversation(loaded, "What is it?"), [image], Sampling(max_new_tokens=40, **settings))
        slow = backend._generate(backend.prepare(*asked), 0.0, None).text
        assert backend.answer(*asked).text == slow
        return slow

    plain = say_both()
    penalized = say_both(repetition_penalty=1.5)
    assert penalized != plain
    monkeypatch.setattr(loaded.model.generation_config, "repetition_penalty", 1.5)
    assert say_both() == penalized
    assert say_both(repetition_penalty=1.0) == plain


def test_generate_takes_a_seed_and_refuses_what_it_does_not_know(loaded: Any) -> None:
    backend = Answerer(loaded)

    def say(**settings: Any) -> str:
        asked = (conversation(loaded, "Why?", 0), [], Sampling(max_new_tokens=20, **settings))
        return backend._generate(backend.prepare(*asked), 0.0, None).text

    state = torch.get_rng_state()
    drawn = [say(temperature=2.0, seed=seed, min_p=0.001) for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert say(temperature=2.0, seed=1, min_p=1.0) == say()
    with pytest.raises(UsageError, match="Presence and frequency penalties are not supported here"):
        say(presence_penalty=1.0)


def test_more_conversations_than_an_engine_lets_wait_are_answered(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.backends.answerer.MAX_SUBMITTED", 3)
    backend = Answerer(loaded, max_running=2, max_waiting=1)
    asked = [(conversation(loaded, f"Why {i}?", 0), [], Sampling(max_new_tokens=1 + i % 3)) for i in range(8)]
    assert [answer.new_tokens for answer in backend.answer_all(iter(asked))] == [1, 2, 3, 1, 2, 3, 1, 2]
    # One that cannot be asked ends those before it.
    too_long = (conversation(loaded, "word " * 5000, 0), [], Sampling())
    with pytest.raises(ContextTooLong):
        list(backend.answer_all([*asked[:2], too_long]))
    backend.engine.close()
    assert backend.engine.stats().num_finished == 10


@pytest.mark.parametrize("name", ["encode_images", "prepare_inputs_labels_for_multimodal", "forward"])
def test_a_replaced_part_takes_effect(
    loaded: Any, image: LoadedImage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kind = type(loaded.model)
    original, calls = getattr(kind, name), []

    def replacement(self: Any, *arguments: Any, **keywords: Any) -> Any:
        calls.append(name)
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(kind, name, replacement)
    backend = Answerer(loaded)
    backend.answer(conversation(loaded, "What?"), [image], Sampling(max_new_tokens=2))
    assert calls
    assert backend._engine is None
    with pytest.raises(UsageError, match=f"its {name} was replaced"):
        _ = backend.engine


def test_replaced_attention_and_hooks_take_effect_and_are_told_once(
    loaded: Any, image: LoadedImage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Answerer(loaded)
    asked = (conversation(loaded, "What?"), [image], Sampling(max_new_tokens=2))
    kind, seen = type(loaded.model.get_model().layers[0].self_attn), []
    original = kind.forward

    def replacement(self: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.append("attention")
        return original(self, *arguments, **keywords)

    with monkeypatch.context() as changed:
        changed.setattr(kind, "forward", replacement)
        backend.answer(*asked)
    hook = loaded.model.get_model().register_forward_hook(lambda *_: seen.append("hook"))
    backend.answer(*asked)
    backend.answer(*asked)
    hook.remove()
    told = "The model answers through generate, which is slower than the engine: a hook is on a module that the engine"
    assert [record.message.startswith(told) for record in caplog.records] == [False, True]
    assert set(seen) == {"attention", "hook"}
    assert backend._engine is None
    forbid_generate(loaded, monkeypatch)
    backend.answer(*asked)


def test_beams_and_cut_prompts_go_through_generate(loaded: Any, image: LoadedImage) -> None:
    backend = Answerer(loaded)
    backend.answer(conversation(loaded, "What?"), [image], Sampling(num_beams=2, max_new_tokens=2))
    config = loaded.model.config
    config.truncate_to_model_max_length, config.tokenizer_model_max_length = True, 40
    try:
        cut = backend.answer(conversation(loaded, "What?"), [image], Sampling(max_new_tokens=2))
    finally:
        del config.truncate_to_model_max_length, config.tokenizer_model_max_length
    assert cut.prompt_tokens == 40
    assert cut.cut_tokens > 0
    assert backend._engine is None


def test_an_exception_while_text_comes_ends_the_answer(loaded: Any, image: LoadedImage) -> None:
    backend = Answerer(loaded)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.answer(conversation(loaded, "What?"), [image], Sampling(max_new_tokens=900), interrupt)
    after = backend.answer(conversation(loaded, "What?"), [image], Sampling(max_new_tokens=4))
    assert after.new_tokens == 4
    backend.engine.close()
    assert backend.engine.stats().num_running == 0


def test_where_memory_is_short_answers_are(loaded: Any, image: LoadedImage) -> None:
    asked = (conversation(loaded, "What?"), [image], Sampling(max_new_tokens=500))
    prompt_tokens = Answerer(loaded).prepare(*asked).prompt_tokens
    config = loaded.model.config
    of_position = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    backend = Answerer(loaded, memory_bytes=(prompt_tokens // 16 + 2) * 16 * of_position)
    answer = backend.answer(*asked)
    assert not answer.finished
    assert answer.new_tokens == backend.engine.cache_tokens - prompt_tokens + 1
    assert answer.finish_reason == "memory"


def test_where_the_context_is_full_the_answer_says_so(loaded: Any) -> None:
    asked = (conversation(loaded, "What?", 0), [], Sampling(max_new_tokens=4000))
    backend = Answerer(loaded)
    context_tokens = backend.prepare(*asked).prompt_tokens + 3
    short = Answerer(replace(loaded, context_tokens=context_tokens))
    answer = short.answer(*asked)
    assert (answer.finish_reason, answer.new_tokens, answer.finished) == ("context", 3, False)
    assert "fill the model's context" in (answer.explain() or "")


def test_a_model_that_nobody_refers_to_is_let_go(next_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.engine.engine.IDLE_S", 0.01)
    mine = load_model(str(next_folder), device="cpu", dtype="float32")
    assert Answerer.of(mine) is Answerer.of(mine)
    others = set(threading.enumerate())
    Answerer.of(mine).answer(conversation(mine, "What?", 0), [], Sampling(max_new_tokens=2))
    engine = Answerer.of(mine).engine
    assert isinstance(engine, Engine)
    for thread in set(threading.enumerate()) - others:
        thread.join(200)
    gone = weakref.ref(mine.model)
    del mine, engine
    gc.collect()
    assert gone() is None


def test_settings_that_contradict_those_of_a_running_model_are_an_error(next_folder: Path) -> None:
    mine = load_model(str(next_folder), device="cpu", dtype="float32")
    first = Answerer.of(mine, memory_bytes=2**22, max_running=3)
    # What is left out, None, or the same, contradicts nothing; nor does a default that is spelled out.
    assert Answerer.of(mine) is first
    assert Answerer.of(mine, memory_bytes=None, max_running=3, arithmetic="exact") is first
    with pytest.raises(UsageError, match=r"max_running is 4, but .* already runs with 3\. Leave it out, or load"):
        Answerer.of(mine, memory_bytes=2**22, max_running=4)
    with pytest.raises(UsageError, match=r"arithmetic is 'int8', but .* already runs with 'exact'"):
        Answerer.of(mine, arithmetic="int8")
    with pytest.raises(UsageError, match="arithmetic is 'int4'; it has to be 'exact' or 'int8'"):
        Answerer.of(mine, arithmetic="int4")
    other = load_model(str(next_folder), device="cpu", dtype="float32")
    assert Answerer.of(other, max_running=4).engine.settings.max_running == 4
    Answerer.of(other).engine.close()
    # Memory that was left to the first caller's default is named as such.
    with pytest.raises(UsageError, match=r"memory_bytes is 4096, but .* already runs with its default"):
        Answerer.of(other, memory_bytes=4096)


def test_torchs_own_numbers_decide_where_no_seed_is_given(loaded: Any) -> None:
    backend = Answerer(loaded)

    def ask() -> str:
        torch.manual_seed(5)
        return backend.answer(conversation(loaded, "What?", 0), [], Sampling(temperature=2.0, max_new_tokens=9)).text

    first = ask()
    assert ask() == first


def test_more_beams_than_fit_are_refused_before_they_take_the_memory(
    loaded: Any, image: LoadedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_generate(loaded, monkeypatch)
    asked = (conversation(loaded, "What?"), [image])
    with pytest.raises(UsageError, match=r"^10000000000 beams take .* free. Search with at most \d+\.$"):
        Answerer(loaded).answer(*asked, Sampling(num_beams=10**10, max_new_tokens=2))
