"""The OpenAI client backend: requests, answers, and every kind of fault."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageChops

from llava.backends.protocol import ChatMessage, ChatRequest, Delta, SentImage
from llava.backends.remote import Remote, Timeouts, escape_markup, write_messages
from llava.errors import EngineClosed, EngineFailed, EngineFull, LlavaError, UsageError
from llava.image.source import load_image
from llava.sampling import Sampling
from tests.backends.fake_engine import FakeEngine
from tests.backends.test_process import until

# Many times what anything takes here, so that it is waited for on a machine that is busy with other things, too.
PATIENT = Timeouts(connect_s=200, read_s=200, check_s=200)


def ask(text: str, **sampling: Any) -> ChatRequest:
    return ChatRequest((ChatMessage("user", (text,)),), Sampling(**sampling))


@asynccontextmanager
async def remote(engine: FakeEngine | None = None, **settings: Any) -> AsyncIterator[tuple[Remote, FakeEngine]]:
    engine = engine or FakeEngine()
    await engine.start()
    client = Remote(engine.url, timeouts=settings.pop("timeouts", PATIENT), **settings)
    try:
        await client.start()
        yield client, engine
    finally:
        await client.stop()
        await engine.stop()


async def read(client: Remote, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in client.chat(request)]


def run(task: Callable[[Remote, FakeEngine], Awaitable[Any]], engine: FakeEngine | None = None, **settings: Any) -> Any:
    async def everything() -> Any:
        async with remote(engine, **settings) as (client, fake):
            return await task(client, fake)

    return asyncio.run(everything())


def text_of(deltas: list[Delta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


def test_an_answer_comes_in_pieces_and_ends_with_its_reason_and_its_usage() -> None:
    deltas = run(lambda client, _: read(client, ask("say a black cat")))
    assert [delta.text for delta in deltas] == ["a ", "black ", "cat ", ""]
    assert [delta.finish_reason for delta in deltas] == [None, None, None, "stop"]
    assert [delta.usage is not None for delta in deltas] == [False, False, False, True]
    usage = deltas[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (11, 3, 5)


def test_an_answer_that_was_cut_says_so() -> None:
    deltas = run(lambda client, _: read(client, ask("say a black cat", max_new_tokens=3)))
    assert deltas[-1].finish_reason == "length"


def test_an_engine_that_counts_nothing_still_ends_with_a_usage() -> None:
    deltas = run(lambda client, _: read(client, ask("say a cat")), FakeEngine(usage=False))
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == 2


def test_what_is_asked_for_is_sent_in_openais_names() -> None:
    sampling = Sampling(
        0.5, top_p=0.9, max_new_tokens=7, top_k=5, seed=3, stop=("END",), presence_penalty=0.1, frequency_penalty=0.2
    )
    request = ChatRequest(
        (
            ChatMessage("system", ("Be brief.",)),
            ChatMessage("user", ("hello",)),
            ChatMessage("assistant", ("yes?",)),
            ChatMessage("user", ("echo",)),
        ),
        sampling,
        num_choices=2,
        top_logprobs=4,
    )

    async def task(client: Remote, fake: FakeEngine) -> Any:
        await read(client, request)
        return fake.begun[0]

    begun = run(task, api_key="secret")
    sent = begun["body"]
    assert begun["path"] == "/v1/chat/completions"
    assert begun["headers"]["authorization"] == "Bearer secret"
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert sent["messages"][1]["content"] == "hello"
    expected = {"model": "fake", "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "n": 2, "seed": 3, "stop": ["END"]}
    expected |= {"presence_penalty": 0.1, "frequency_penalty": 0.2, "logprobs": True, "top_logprobs": 4, "stream": True}
    assert {name: sent[name] for name in expected} == expected
    assert sent["top_k"] == 5  # asked for, so sent though OpenAI itself has no such word
    assert "min_p" not in sent
    assert "repetition_penalty" not in sent


def test_the_form_of_an_answer_is_passed_on_and_only_where_it_was_asked_for() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "sign", "schema": {"type": "object"}}}

    async def task(client: Remote, fake: FakeEngine) -> Any:
        await read(client, replace(ask("echo"), response_format=form))
        await read(client, ask("echo"))
        return [begun["body"].get("response_format") for begun in fake.begun]

    assert run(task) == [form, None]


def test_a_text_to_be_continued_goes_to_completions() -> None:
    async def task(client: Remote, fake: FakeEngine) -> Any:
        deltas = await read(client, ChatRequest(prompt="say a cat"))
        return fake.begun[0]["path"], text_of(deltas)

    assert run(task) == ("/v1/completions", "a cat ")


def test_images_go_as_png_in_their_places_with_their_detail() -> None:
    image = Image.linear_gradient("L").resize((31, 17)).convert("RGB")
    loaded = load_image(image)
    (message,) = write_messages([ChatMessage("user", ("before", SentImage(loaded, "low"), "after"))])
    assert [part["type"] for part in message["content"]] == ["text", "image_url", "text"]
    sent = message["content"][1]["image_url"]
    head, _, body = sent["url"].partition(",")
    assert head == "data:image/png;base64"
    assert sent["detail"] == "low"
    back = Image.open(io.BytesIO(base64.b64decode(body)))
    assert back.mode == "RGB"
    assert ImageChops.difference(back, image).getbbox() is None


@pytest.mark.parametrize(
    "typed",
    ["<image>", "see <image> here", "</s>", "<s>", "<|im_end|>", "<|image_pad|>", "[INST]", "[/INST]", "<im_start>"],
)
def test_markup_that_a_person_typed_is_parted(typed: str) -> None:
    guarded = escape_markup(typed)
    assert typed not in guarded
    assert guarded.replace("\ufdd0", "") == typed
    assert escape_markup(guarded) == guarded
    (message,) = write_messages([ChatMessage("user", (typed,))])
    assert message["content"] == guarded


@pytest.mark.parametrize("typed", ["a < b > c", "<b>bold</b>", "x[1]", "List<String>", "if (a<s) return;"])
def test_other_text_stays_as_it_is(typed: str) -> None:
    assert escape_markup(typed) == typed


def test_several_choices_are_told_apart() -> None:
    request = ChatRequest((ChatMessage("user", ("say a cat",)),), Sampling(temperature=1), num_choices=3)
    deltas = run(lambda client, _: read(client, request))
    assert [text_of(deltas, index) for index in range(3)] == ["a cat "] * 3
    assert [delta.index for delta in deltas if delta.finish_reason] == [0, 1, 2]
    assert [delta.usage is not None for delta in deltas if delta.finish_reason] == [False, False, True]


def test_greedy_choices_are_computed_once_and_counted_each() -> None:
    request = ChatRequest((ChatMessage("user", ("say a cat",)),), num_choices=3)

    async def task(client: Remote, fake: FakeEngine) -> Any:
        return await read(client, request), fake.begun[0]["body"]["n"]

    deltas, asked_for = run(task)
    assert asked_for == 1
    assert [text_of(deltas, index) for index in range(3)] == ["a cat "] * 3
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == 6


def test_log_probabilities_are_read() -> None:
    request = ChatRequest((ChatMessage("user", ("say cat",)),), top_logprobs=1)
    deltas = run(lambda client, _: read(client, request))
    (said,) = deltas[0].logprobs
    assert (said.token, said.logprob, said.top) == ("cat ", -0.5, (("x", -0.7),))


FAULTS: dict[str, tuple[type[LlavaError], str]] = {
    "status 400 the image is odd": (EngineFailed, "status 400: the image is odd"),
    "status 500 it broke": (EngineFailed, "status 500: it broke"),
    "status 429 full": (EngineFull, "too busy: full Try again in 7 s."),
    "status 503 loading": (EngineClosed, "too busy: loading"),
    "status 401 no": (EngineFailed, "LLAVA_ENGINE_KEY"),
    "event too long": (EngineFailed, "status 400: too long"),
    "break": (EngineClosed, "closed the connection before the answer ended"),
    "unfinished": (EngineClosed, "closed the connection before the answer ended"),
    "nonsense": (EngineFailed, "not JSON"),
    "stranger": (EngineFailed, "choice 99"),
    "wait": (EngineFailed, "sent nothing for 0.5 s"),
}


@pytest.mark.parametrize("order", FAULTS)
def test_each_fault_has_an_error_of_its_own_and_the_next_request_is_answered(order: str) -> None:
    kind, words = FAULTS[order]

    async def task(client: Remote, _: FakeEngine) -> Any:
        with pytest.raises(kind) as caught:
            await read(client, ask(order))
        assert words in str(caught.value)
        counts = dict(client.count())
        assert (counts["requests_running"], counts["failed_requests_total"]) == (0, 1)
        client._client.timeout = PATIENT.read_s  # type: ignore[assignment]
        return text_of(await read(client, ask("say fine")))

    assert run(task, timeouts=replace(PATIENT, read_s=0.5) if order == "wait" else PATIENT) == "fine "


def test_the_status_of_a_refusal_is_kept() -> None:
    async def task(client: Remote, _: FakeEngine) -> int:
        with pytest.raises(EngineFailed) as caught:
            await read(client, ask("status 422 no"))
        return caught.value.status

    assert run(task) == 422


def test_an_engines_words_lose_addresses_and_paths() -> None:
    async def task(client: Remote, _: FakeEngine) -> str:
        with pytest.raises(EngineFailed) as caught:
            await read(client, ask("status 400 bad <_io.BytesIO object at 0x7f12ab34> in /opt/engine/image.py and 3/4"))
        return str(caught.value)

    words = run(task)
    assert "0x7f" not in words
    assert "/opt" not in words
    assert "3/4" in words
    assert "bad <_io.BytesIO object" in words


def test_who_stops_reading_closes_the_connection() -> None:
    async def task(client: Remote, fake: FakeEngine) -> None:
        deltas = client.chat(ask("wait"))
        assert (await anext(deltas)).text == "one "
        assert client.count()["requests_running"] == 1
        await deltas.aclose()  # type: ignore[attr-defined]
        assert client.count()["requests_running"] == 0
        await until(lambda: fake.num_left == 1)

    run(task)


def test_a_cancelled_task_closes_the_connection_too() -> None:
    async def task(client: Remote, fake: FakeEngine) -> None:
        came = asyncio.Event()

        async def listen() -> None:
            async for _ in client.chat(ask("wait")):
                came.set()

        reading = asyncio.create_task(listen())
        await came.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: fake.num_left == 1)

    run(task)


def test_start_finds_the_model_and_its_context() -> None:
    async def task(client: Remote, _: FakeEngine) -> Any:
        return client.model_id, client.context_tokens, await client.is_ready()

    assert run(task) == ("fake", 4096, True)
    assert run(task, model_id="ours") == ("ours", 4096, True)


def test_several_models_have_to_be_chosen_from() -> None:
    engine = FakeEngine(models=("one", "two"))
    with pytest.raises(UsageError, match=r"2 models \(one, two\).*--engine-model"):
        run(lambda client, _: read(client, ask("say x")), engine)
    with pytest.raises(EngineFailed, match="no 'three', but one, two"):
        run(lambda client, _: read(client, ask("say x")), FakeEngine(models=("one", "two")), model="three")
    assert text_of(run(lambda c, _: read(c, ask("say x")), FakeEngine(models=("one", "two")), model="two")) == "x "


def test_a_wrong_key_is_refused_at_the_start() -> None:
    with pytest.raises(EngineFailed, match="LLAVA_ENGINE_KEY"):
        run(lambda client, _: read(client, ask("say x")), FakeEngine(api_key="right"), api_key="wrong")


def test_nobody_there_is_said_so() -> None:
    async def task() -> None:
        client = Remote("http://127.0.0.1:9/v1", model="x", timeouts=PATIENT)
        assert not await client.is_ready()
        with pytest.raises(EngineClosed, match="cannot be reached"):
            await client.start()
        with pytest.raises(EngineClosed, match="cannot be reached"):
            await read(client, ask("say x"))
        await client.stop()
        assert not await client.is_ready()

    asyncio.run(task())


def test_something_else_there_is_no_engine() -> None:
    async def task() -> None:
        async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n<p>hi</p>")
            writer.close()

        server = await asyncio.start_server(page, "127.0.0.1", 0)
        client = Remote(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", timeouts=PATIENT)
        with pytest.raises(EngineFailed, match="is not OpenAI-compatible"):
            await client.start()
        await client.stop()
        server.close()

    asyncio.run(task())


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://", "http://x/v1?key=1", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="not the URL of an engine"):
        Remote(url)
