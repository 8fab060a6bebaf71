"""The real OpenAI client works unchanged."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest
from PIL import Image

from llava.backends.engine_backend import EngineBackend
from llava.backends.protocol import TokenLogprob
from llava.serve.limits import Settings
from llava.serve.schemas import write_chat_logprobs, write_completion_logprobs
from tests.serve.conftest import LIMITS, Internet
from tests.serve.serving import Puppet, Running, data_uri, run_server, write_image

DEMO = Path(__file__).resolve().parents[2] / "examples/demo.png"
QUESTION = "What is written on the sign?"


@pytest.fixture(scope="module")
def client(own: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{own.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def image(data: bytes | str = DEMO.read_bytes(), **more: Any) -> Any:
    url = data if isinstance(data, str) else data_uri(data)
    return {"type": "image_url", "image_url": {"url": url, **more}}


def ask(client: openai.OpenAI, *parts: Any, **more: Any) -> Any:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return client.chat.completions.create(
        model="embedded", messages=[{"role": "user", "content": content}], **{"max_tokens": 20, **more}
    )


def test_an_image_in_a_data_uri_is_read(client: openai.OpenAI) -> None:
    said = ask(client, image(), QUESTION)
    (choice,) = said.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("MORTALS", "assistant", "stop")
    assert said.usage.prompt_tokens_details.image_tokens == 200  # type: ignore[attr-defined]
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens
    assert said.id.startswith("chatcmpl-")


def test_an_image_by_url_is_fetched(client: openai.OpenAI, internet: Internet) -> None:
    url = internet.page("/sign.png", DEMO.read_bytes())
    assert ask(client, image(url), QUESTION).choices[0].message.content == "MORTALS"
    assert internet.connected == [internet.address]


def test_a_private_address_is_asked_only_where_that_is_set(internet: Internet) -> None:
    internet.page("/sign.png", DEMO.read_bytes())
    url = f"http://127.0.0.1:{internet.tcp.server_address[1]}/sign.png"
    with (
        run_server(EngineBackend(), Settings(limits=LIMITS, fetch_private=True)) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
    ):
        assert ask(client, image(url), QUESTION).choices[0].message.content == "MORTALS"


def test_a_stream_says_the_role_first_then_the_same_text_then_usage(client: openai.OpenAI) -> None:
    whole = ask(client, image(), QUESTION)
    chunks = list(ask(client, image(), QUESTION, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) == len("MORTALS")
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_usage_is_streamed_only_where_it_is_asked_for(client: openai.OpenAI) -> None:
    chunks = list(ask(client, QUESTION, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_differ_and_come_back_with_their_seed(client: openai.OpenAI, stream: bool) -> None:
    def draw(n: int) -> list[str]:
        said = ask(client, image(), QUESTION, n=n, temperature=2.0, seed=11, stream=stream)
        if not stream:
            return [choice.message.content for choice in said.choices]
        texts = [""] * n
        for chunk in said:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        return texts

    three = draw(3)
    assert len(set(three)) == 3
    assert draw(3) == three
    assert draw(1) == three[:1]


def test_greedy_choices_are_equal(client: openai.OpenAI) -> None:
    said = ask(client, image(), QUESTION, n=2)
    assert [(choice.index, choice.message.content) for choice in said.choices] == [(0, "MORTALS"), (1, "MORTALS")]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_those_of_the_tokens_said(client: openai.OpenAI, stream: bool) -> None:
    said = ask(client, image(), QUESTION, logprobs=True, top_logprobs=3, stream=stream)
    if stream:
        content = [one for c in said if c.choices[0].logprobs for one in c.choices[0].logprobs.content]
    else:
        content = said.choices[0].logprobs.content
    assert "".join(one.token for one in content).strip() == "MORTALS"
    for one in content:
        assert one.bytes == list(one.token.encode())
        assert len(one.top_logprobs) == 3
        assert one.top_logprobs[0].token == one.token  # greedy
        assert one.top_logprobs[0].logprob == pytest.approx(one.logprob)
        assert 0 >= one.logprob >= one.top_logprobs[1].logprob >= one.top_logprobs[2].logprob


def test_parts_of_a_character_are_told_by_their_bytes() -> None:
    parts = [TokenLogprob(token, -1.0, ((token, -1.0), ("\udc81", -2.0))) for token in ("a", "\udcc3", "\udca9", "b")]
    chat, text = write_chat_logprobs(parts, 2), write_completion_logprobs(parts, 2)
    assert chat is not None
    assert text is not None
    assert bytes(byte for one in chat["content"] for byte in one["bytes"]).decode() == "aéb"
    assert [one["token"] for one in chat["content"]] == text["tokens"] == ["a", "\\xc3", "\\xa9", "b"]
    assert text["text_offset"] == [0, 1, 2, 2]
    assert text["top_logprobs"][1] == {"\\xc3": -1.0, "\\x81": -2.0}


def test_logprobs_without_top_tell_the_chosen_alone(client: openai.OpenAI) -> None:
    content = ask(client, QUESTION, logprobs=True, max_tokens=2).choices[0].logprobs.content
    assert [one.top_logprobs for one in content] == [[], []]


def test_an_answer_ends_before_a_stop_text_wherever_tokens_end(client: openai.OpenAI) -> None:
    said = ask(client, image(), QUESTION, stop=["xyz", "RTA"])
    assert (said.choices[0].message.content, said.choices[0].finish_reason) == ("MO", "stop")
    chunks = list(ask(client, image(), QUESTION, stop="RTA", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "MO"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_an_answer_ends_at_its_length(client: openai.OpenAI, name: str) -> None:
    said = ask(client, image(), QUESTION, **{"max_tokens": None, name: 4})
    assert (said.choices[0].message.content, said.choices[0].finish_reason) == ("MOR", "length")
    assert said.usage.completion_tokens == 4


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty"])
def test_a_penalty_changes_what_is_drawn(client: openai.OpenAI, name: str) -> None:
    def draw(penalty: float) -> list[str]:
        said = ask(client, "Hi", n=8, seed=3, temperature=2.0, max_tokens=40, **{name: penalty})
        return [choice.message.content for choice in said.choices]

    assert draw(2.0) != draw(0.0)
    assert draw(2.0) == draw(2.0)


def test_low_detail_is_the_whole_image_tile_alone(client: openai.OpenAI) -> None:
    def count(**more: Any) -> int:
        return ask(client, image(**more), QUESTION).usage.prompt_tokens_details.image_tokens

    assert count(detail="low") == 8 * 8 + 1
    assert count(detail="high") == count(detail="auto") == count() == 200


def test_images_stand_in_every_turn(client: openai.OpenAI) -> None:
    red, blue = (image(write_image(Image.new("RGB", (30, 30), name))) for name in ("red", "blue"))
    messages: list[Any] = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Compare"}, red, {"type": "text", "text": "with"}, blue]},
        {"role": "assistant", "content": [{"type": "text", "text": "They differ."}]},
        {"role": "user", "content": [image(), {"type": "text", "text": QUESTION}]},
    ]
    said = client.chat.completions.create(model="embedded", messages=messages, max_tokens=5)
    one = ask(client, red, "x").usage.prompt_tokens_details.image_tokens
    assert said.usage.prompt_tokens_details.image_tokens == 2 * one + 200  # type: ignore[union-attr]


def test_the_model_is_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["embedded"]
    model = client.models.retrieve("embedded")
    assert (model.id, model.object, model.max_model_len) == ("embedded", "model", 2048)  # type: ignore[attr-defined]


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-4")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(client, image("http://127.0.0.1/x.png"), QUESTION)
    assert wrong.value.code == "image_fetch_failed"
    assert wrong.value.param == "messages.0.content.0.image_url"
    with pytest.raises(openai.BadRequestError) as long:
        ask(client, "word " * 5000)
    assert long.value.code == "context_length_exceeded"
    assert "2048" in long.value.message
    with pytest.raises(openai.BadRequestError, match="temperature"):
        ask(client, "Why?", temperature=3)
    assert wrong.value.request_id.startswith("req_")  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_is_continued_outside_any_template(client: openai.OpenAI, stream: bool) -> None:
    prompt = "USER: What is <image>? ASSISTANT:"
    said = client.completions.create(
        model="embedded", prompt=prompt, max_tokens=6, stream=stream, logprobs=2, seed=1, temperature=1.0
    )
    if stream:
        choices = [chunk.choices[0] for chunk in said]  # type: ignore[union-attr]
        text, tokens = "".join(one.text for one in choices), [t for one in choices for t in one.logprobs.tokens]  # type: ignore[union-attr]
        offsets = [place for one in choices for place in one.logprobs.text_offset]  # type: ignore[union-attr]
    else:
        (choice,) = said.choices  # type: ignore[union-attr]
        text, tokens, offsets = choice.text, choice.logprobs.tokens, choice.logprobs.text_offset
        assert said.usage.prompt_tokens > 10  # type: ignore[union-attr]
    assert text
    assert "".join(tokens) == text
    assert offsets == [len("".join(tokens[:i])) for i in range(len(tokens))]


def test_the_chosen_token_is_always_among_the_logprobs_of_a_text(client: openai.OpenAI) -> None:
    said = client.completions.create(model="embedded", prompt="a", max_tokens=8, logprobs=1, seed=1, temperature=2.0)
    logprobs: Any = said.choices[0].logprobs
    assert [top[token] for top, token in zip(logprobs.top_logprobs, logprobs.tokens, strict=True)] == (
        logprobs.token_logprobs
    )
    assert 2 in map(len, logprobs.top_logprobs)  # beside a likelier one


def test_every_chunk_of_a_streamed_text_has_a_usage_where_one_is_asked_for(client: openai.OpenAI) -> None:
    *chunks, last = client.completions.create(
        model="embedded", prompt="a", max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    assert all("usage" in chunk.to_dict() and chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == len(chunks) == 3


def test_a_response_is_the_same_answer(client: openai.OpenAI) -> None:
    parts: Any = [
        {"type": "input_image", "image_url": data_uri(DEMO.read_bytes()), "detail": "auto"},
        {"type": "input_text", "text": QUESTION},
    ]
    said = client.responses.create(model="embedded", input=[{"role": "user", "content": parts}])
    assert (said.output_text, said.status) == ("MORTALS", "completed")
    assert said.usage is not None
    assert said.usage.total_tokens == said.usage.input_tokens + said.usage.output_tokens
    low = client.responses.create(
        model="embedded", input=[{"role": "user", "content": [{**parts[0], "detail": "low"}, parts[1]]}]
    )
    assert low.usage is not None
    assert said.usage.input_tokens - low.usage.input_tokens == 200 - 65
    cut = client.responses.create(
        model="embedded", input=[{"role": "user", "content": parts}], max_output_tokens=4, instructions="Be brief."
    )
    assert (cut.output_text, cut.status, cut.incomplete_details.reason) == (  # type: ignore[union-attr]
        "MOR",
        "incomplete",
        "max_output_tokens",
    )


def test_a_response_comes_in_events_too(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="embedded", input="Hello", max_output_tokens=8)
    events = list(client.responses.create(model="embedded", input="Hello", max_output_tokens=8, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert events[-1].response.output_text == whole.output_text  # type: ignore[union-attr]
    assert events[-1].type == f"response.{whole.status}"


def test_a_response_keeps_nothing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="nothing is kept"):
        client.responses.create(model="embedded", input="Hi", previous_response_id="resp_1")
    with pytest.raises(openai.BadRequestError, match="conversation is not supported"):
        client.responses.create(model="embedded", input="Hi", conversation="conv_1")
    with pytest.raises(openai.BadRequestError, match=r"input\.0: nothing is kept here, so an item"):
        client.responses.create(model="embedded", input=[{"type": "item_reference", "id": "msg_1"}])


class Answer(pydantic.BaseModel):
    text: str


class Seen(pydantic.BaseModel, extra="forbid"):
    what: Literal["a sign", "a wall"]
    how_many: int = pydantic.Field(ge=0, le=9)
    sure: bool


def test_answers_are_held_to_a_schema(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": [image(), {"type": "text", "text": QUESTION}]}]
    parsed = client.chat.completions.parse(
        model="embedded", messages=messages, response_format=Seen, n=3, temperature=1.5, seed=1
    )
    assert all(isinstance(choice.message.parsed, Seen) for choice in parsed.choices)
    assert {choice.finish_reason for choice in parsed.choices} == {"stop"}
    with client.chat.completions.stream(model="embedded", messages=messages, response_format=Seen) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion().choices[0].message
    assert len(pieces) > 5
    assert final.parsed == Seen.model_validate_json("".join(pieces))
    response = client.responses.parse(model="embedded", input=messages_of_responses(), text_format=Seen)
    assert isinstance(response.output_parsed, Seen)
    whole = client.chat.completions.create(
        model="embedded", messages=messages, response_format={"type": "json_object"}, max_tokens=200
    )
    assert whole.choices[0].message.content is not None
    assert whole.choices[0].message.content.startswith("{")
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["yes", "no"]}}}
    continued = client.completions.create(model="embedded", prompt="Yes or no?", extra_body={"response_format": form})
    assert continued.choices[0].text.strip() in ('"yes"', '"no"')


def messages_of_responses() -> Any:
    """The same question as /v1/responses has it."""
    shown = {"type": "input_image", "image_url": image()["image_url"]["url"]}
    return [{"role": "user", "content": [shown, {"type": "input_text", "text": QUESTION}]}]


def test_an_engine_that_cannot_says_so() -> None:
    with run_server(Puppet()) as running, openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        with pytest.raises(openai.BadRequestError, match="cannot be constrained") as caught:
            client.chat.completions.create(
                model="puppet",
                messages=[{"role": "user", "content": "Hi"}],
                response_format={"type": "json_object"},
            )
        assert caught.value.param == "response_format"


def test_an_engine_that_can_is_told_the_form_of_an_answer() -> None:
    puppet = Puppet()
    puppet.constrains_answers = True
    with run_server(puppet) as running, openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        messages: Any = [{"role": "user", "content": "Hi"}]
        schema = {"name": "Answer", "schema": Answer.model_json_schema(), "strict": True}
        whole: Any = {"type": "json_schema", "json_schema": schema}
        said = client.responses.create(model="puppet", input="Hi", text={"format": {"type": "json_object"}})
        assert said.text is not None
        assert said.text.format is not None
        assert said.text.format.type == "json_object"
        for form in (whole, {"type": "json_object"}, {"type": "text"}):
            client.chat.completions.create(model="puppet", messages=messages, response_format=form)  # type: ignore[arg-type]
        flat: Any = {"type": "json_schema", **schema}
        told = client.responses.create(model="puppet", input="Hi", text={"format": flat}).text
        assert told is not None
        assert told.format is not None
        assert told.format.to_dict() == flat
        for form, says in (
            ({"type": "grammar"}, "has to be text, json_object or json_schema"),
            ({"type": "json_schema"}, "there is no schema"),
            ({"type": "json_schema", "json_schema": {"name": "x"}}, r"json_schema\.schema: this field is missing"),
            ({"type": "json_schema", "json_schema": {"schema": {"x": "y" * 300_000}}}, "limit characters"),
        ):
            with pytest.raises(openai.BadRequestError, match=says):
                client.chat.completions.create(model="puppet", messages=messages, response_format=form)  # type: ignore[arg-type]
    asked = [request.response_format for request in puppet.requests]
    assert asked == [{"type": "json_object"}, whole, {"type": "json_object"}, None, whole]


def test_base64_and_names_of_files_are_no_urls(client: openai.OpenAI) -> None:
    for url in (base64.b64encode(DEMO.read_bytes()).decode(), str(DEMO), f"file://{DEMO}"):
        with pytest.raises(openai.BadRequestError, match="neither a data URI nor"):
            ask(client, image(url), QUESTION)


def test_several_prompts_are_answered_as_choices_of_one_answer() -> None:
    """LangChain sends a batch so."""
    puppet = Puppet(num_tokens=1)
    with run_server(puppet) as running:
        whole = running.post("/v1/completions", {"prompt": ["a", "b<image>", "c"]}).json
        streamed = running.post(
            "/v1/completions", {"prompt": ["a", "b"], "stream": True, "stream_options": {"include_usage": True}}
        ).events
        for wrong in ([], ["a", 5], [["a"]], [1, 2], {"a": 1}, ["a"] * 1025):
            reply = running.post("/v1/completions", {"prompt": wrong})
            assert (reply.status, reply.error["param"].partition(".")[0]) == (400, "prompt")
    assert [(one["index"], one["text"], one["finish_reason"]) for one in whole["choices"]] == [
        (0, "word ", "stop"),
        (1, "word ", "stop"),
        (2, "word ", "stop"),
    ]
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (21, 3)
    assert [one["choices"][0]["index"] for one in streamed if one["choices"]] == [0, 0, 1, 1]
    assert [one["usage"]["total_tokens"] for one in streamed if one["usage"]] == [16]
    assert len(puppet.requests) == 5


def test_what_other_servers_take_for_no_limit_is_refused_with_what_says_so_here(own: Running) -> None:
    reply = own.chat("Hi", max_tokens=-1)
    assert (reply.status, reply.error["param"]) == (400, "max_tokens")
    assert reply.error["message"].endswith("but it is -1. Leave it out for as many as fit.")
    assert own.chat("Hi", top_p=0).error["message"].endswith('For the likeliest tokens send "temperature": 0.')
