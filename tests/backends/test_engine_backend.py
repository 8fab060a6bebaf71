"""Our engine as a backend: the same answers as ``ask``, and cancellation when nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from llava import load_model
from llava.answer import ask
from llava.backends.engine_backend import EngineBackend, _TokenDecoder, name_model
from llava.backends.protocol import ChatMessage, ChatRequest, Delta, SentImage
from llava.errors import ContextTooLong, EngineClosed, EngineFull, RequestTooLarge, UsageError
from llava.image.source import LoadedImage, load_image
from llava.sampling import Sampling
from tests.backends.test_process import until
from tests.tiny_tokenizers import byte_level, words_and_letters


@pytest.fixture(scope="module")
def loaded(next_folder: Path) -> Any:
    return load_model(str(next_folder), device="cpu", dtype="float32")


@pytest.fixture
def image(photo: Path) -> LoadedImage:
    return load_image(photo)


def request(*parts: str | SentImage, **more: Any) -> ChatRequest:
    sampling = Sampling(**{"max_new_tokens": 12, **more.pop("sampling", {})})
    return ChatRequest((ChatMessage("user", parts),), sampling, **more)


async def collect(own: EngineBackend, asked: ChatRequest) -> list[Delta]:
    return [delta async for delta in own.chat(asked)]


def run(loaded: Any, work: Callable[[EngineBackend], Awaitable[Any]], **settings: Any) -> Any:
    """``work`` with a backend that is started, and stopped and audited behind."""

    async def main() -> Any:
        own = EngineBackend(loaded, **settings)
        await own.start()
        engine = own.engine
        try:
            return await work(own)
        finally:
            await own.stop()
            engine._scheduler.audit()
            assert engine._scheduler.pool.num_available == engine._scheduler.pool.num_blocks
            assert engine._num_open == 0

    return asyncio.run(main())


def text_of(deltas: list[Delta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


def test_it_says_what_ask_says(loaded: Any, image: LoadedImage) -> None:
    expected = ask(loaded, "What is it?", [image, image], Sampling(max_new_tokens=12))
    asked = request(SentImage(image), SentImage(image), "What is it?")
    deltas = run(loaded, lambda own: collect(own, asked))
    assert text_of(deltas) == expected.text
    assert deltas[-1].finish_reason == "length"
    usage = deltas[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (expected.prompt_tokens, 12)
    assert usage.image_tokens == sum(expected.image_positions)
    assert [delta.usage for delta in deltas[:-1]] == [None] * (len(deltas) - 1)


def test_choices_are_those_of_the_seeds_that_follow(loaded: Any) -> None:
    async def work(own: EngineBackend) -> list[list[str]]:
        said = []
        for seed, num_choices in ((5, 3), (5, 1), (6, 1), (7, 1)):
            asked = request("Why?", sampling={"temperature": 3.0, "seed": seed}, num_choices=num_choices)
            deltas = await collect(own, asked)
            said.append([text_of(deltas, index) for index in range(num_choices)])
        return said

    three, *single = run(loaded, work)
    assert three == [one[0] for one in single]
    assert len(set(three)) == 3


def test_low_detail_is_one_tile_and_no_other_image(loaded: Any, image: LoadedImage) -> None:
    async def work(own: EngineBackend) -> Any:
        asked = [request(SentImage(image, detail), "What?", top_logprobs=0) for detail in ("low", "high", "low")]
        return [await collect(own, one) for one in asked]

    low, high, again = run(loaded, work)
    assert low[-1].usage.image_tokens == 2 * 2 + 1 < high[-1].usage.image_tokens
    assert again[-1].usage.cached_tokens > 0
    first, second = ([one.logprob for delta in deltas for one in delta.logprobs] for deltas in (low, high))
    assert first != second
    assert first == pytest.approx([one.logprob for delta in again for one in delta.logprobs], abs=1e-4)


def test_logprobs_spell_the_answer(loaded: Any) -> None:
    deltas = run(loaded, lambda own: collect(own, request("Why?", top_logprobs=2)))
    logprobs = [one for delta in deltas for one in delta.logprobs]
    assert len(logprobs) == 12
    assert "".join(one.token for one in logprobs).strip() == text_of(deltas)
    assert all(len(one.top) == 2 and one.top[0] == (one.token, one.logprob) for one in logprobs)


@pytest.mark.parametrize("tokenizer", [words_and_letters("red blue"), byte_level([])], ids=["byte fallback", "GPT-2's"])
def test_parts_of_a_character_are_spelled_in_bytes(tokenizer: Any) -> None:
    decoder, text = _TokenDecoder(tokenizer), "a red é 😀 b"
    spelled = [decoder.decode(token) for token in tokenizer(text, add_special_tokens=False).input_ids]
    assert "".join(spelled).encode("utf-8", "surrogateescape").decode().strip() == text
    assert spelled[spelled.index("\udcf0") :][:4] == ["\udcf0", "\udc9f", "\udc98", "\udc80"]


def test_closing_the_iterator_frees_its_work(loaded: Any) -> None:
    async def work(own: EngineBackend) -> None:
        deltas = own.chat(request("Why?", sampling={"max_new_tokens": 900}, num_choices=4))
        await deltas.__anext__()
        assert own.count()["requests_running"] > 0
        await deltas.aclose()  # type: ignore[attr-defined]
        await until(lambda: own.engine._num_open == 0)
        assert own.engine.stats().new_tokens < 4 * 900
        assert own.count()["requests_running"] == own.count()["kv_used_share"] == 0

    run(loaded, work)


def test_stopping_breaks_open_answers_off(loaded: Any) -> None:
    async def work(own: EngineBackend) -> None:
        deltas = own.chat(request("Why?", sampling={"max_new_tokens": 900}))
        await deltas.__anext__()
        await own.stop()
        with pytest.raises(EngineClosed, match="closed before the answer ended"):
            async for _ in deltas:
                pass
        assert not await own.is_ready()
        with pytest.raises(EngineClosed, match="not loaded"):
            await collect(own, request("Hi"))
        await own.stop()

    run(loaded, work)


def test_what_does_not_fit_is_refused_before_the_first_delta(loaded: Any, image: LoadedImage) -> None:
    async def work(own: EngineBackend) -> None:
        with pytest.raises(ContextTooLong, match=rf"takes \d+ tokens, .* holds {own.context_tokens}"):
            await own.chat(request("word " * 5000)).__anext__()
        with pytest.raises(UsageError, match="prompt has 1 <image>, but there are 0 images"):
            await own.chat(ChatRequest(prompt="See <image>")).__anext__()
        with pytest.raises(ContextTooLong):
            await own.chat(ChatRequest(prompt="word " * 5000)).__anext__()
        asked = ChatRequest(prompt="See <image>:", images=(SentImage(image),), sampling=Sampling(max_new_tokens=3))
        assert (await collect(own, asked))[-1].usage.image_tokens > 5  # type: ignore[union-attr]

    run(loaded, work)


def test_a_prompt_that_the_cache_cannot_hold_is_refused(loaded: Any) -> None:
    async def work(own: EngineBackend) -> None:
        with pytest.raises(RequestTooLarge, match="the KV cache holds"):
            await own.chat(request("word " * 40)).__anext__()

    config = loaded.model.config
    of_position = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    run(loaded, work, memory_bytes=2 * 16 * of_position)


def test_choices_that_are_too_many_for_the_engine_leave_none_behind(loaded: Any) -> None:
    async def work(own: EngineBackend) -> None:
        with pytest.raises(EngineFull):
            await own.chat(request("Why?", sampling={"max_new_tokens": 500}, num_choices=6)).__anext__()
        await until(lambda: not own.engine._num_open)  # they are let go when the step that runs is over
        assert (await collect(own, request("Why?")))[-1].usage is not None

    run(loaded, work, max_running=2, max_waiting=2)


def test_a_model_has_a_name_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "my-llava").mkdir()
    assert name_model(tmp_path / "my-llava") == name_model(str(tmp_path / "my-llava")) == "my-llava"
    assert name_model("liuhaotian/llava-v1.5-7b") == "liuhaotian/llava-v1.5-7b"
    assert name_model(None) == "embedded"


def test_an_unknown_template_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no conversation template 'nonsense'"):
        EngineBackend(template="nonsense")


def test_what_runs_slower_than_it_could_is_logged_once_and_told(loaded: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def look(backend: EngineBackend) -> list[tuple[str, ...]]:
        assert [record.message for record in caplog.records] == list(backend.fallbacks)
        runner, told = backend.engine._runner, []
        for runner.fallback_reason, runner.tower_fallback_reason in (
            (None, None),
            (None, "of x"),
            ("of y", "of x"),
            ("of z", "of z"),
        ):
            told.append(backend.fallbacks)
        return told

    reason = "runs through PyTorch, which is slower:"
    assert run(loaded, look) == [
        (),
        (f"The vision tower {reason} of x.",),
        (f"The decoder {reason} of y.", f"The vision tower {reason} of x."),
        (f"The model {reason} of z.",),
    ]
    assert len(caplog.records) == 1  # the tiny model's heads are too small for the library
    assert EngineBackend(loaded).fallbacks == ()
