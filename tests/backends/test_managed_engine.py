"""SGLang and vLLM as managed engines, with fake programs in their place."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from transformers import AutoTokenizer

from llava.backends.checkpoints import Checkpoint, find_hf_folder
from llava.backends.events import StreamReader
from llava.backends.managed_engine import EngineOptions, ManagedEngine
from llava.backends.process import Supervision
from llava.backends.protocol import ChatMessage, ChatRequest, Delta, SentImage
from llava.backends.sglang import SGLang, _Translation, write_body
from llava.backends.vllm import TEMPLATE, VLLM, write_message
from llava.cli import build_parser
from llava.errors import ContextTooLong, EngineClosed, EngineFailed, LlavaError, RequestTooLarge, UsageError
from llava.image.source import load_image
from llava.model.checkpoint import load_model
from llava.sampling import Sampling
from llava.serve.limits import Limits, Settings
from tests.backends.test_process import FAKE, PATIENT, QUICK, engine_of, family, until


class Stand(VLLM):
    """vLLM, but for its program and the time that takes to install."""

    module = "json"

    def write_command(self, python: str, checkpoint: Checkpoint, port: int) -> list[str]:
        command = [python, str(FAKE), "--port", str(port), "--api-key", self._key, "--model", self.model_id]
        return [*command, *self.options.arguments]


@pytest.fixture(scope="module")
def hf_folder(next_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_hf_folder(next_folder, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def checkpoint(hf_folder: Path) -> Checkpoint:
    return Checkpoint(hf_folder)


def ask(text: str, *images: Path, **settings: Any) -> ChatRequest:
    parts: list[Any] = [SentImage(load_image(path)) for path in images]
    return ChatRequest((ChatMessage("user", (*parts, text)),), **settings)


@asynccontextmanager
async def serving(folder: Path, *flags: str, supervision: Supervision = QUICK, **options: Any) -> AsyncIterator[Stand]:
    backend = Stand(folder, model_id="tiny", options=EngineOptions(arguments=flags, **options), supervision=supervision)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.stop()


async def read(backend: ManagedEngine, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in backend.chat(request)]


async def answer(backend: ManagedEngine, request: ChatRequest) -> str:
    return "".join(delta.text for delta in await read(backend, request))


def run(task: Callable[[], Awaitable[Any]]) -> Any:
    async def everything() -> Any:
        return await task()

    return asyncio.run(everything())


def test_a_chat_is_answered_without_blanks_at_its_ends_and_with_our_count_of_positions(hf_folder: Path) -> None:
    async def task() -> None:
        async with serving(hf_folder) as backend:
            assert await backend.is_ready()
            deltas = await read(backend, ask("say a cat"))
            assert "".join(delta.text for delta in deltas) == "a cat"
            assert deltas[-1].finish_reason == "stop"
            counts = backend.count()
            assert (counts["requests_total"], counts["engine_starts_total"]) == (1, 1)
            # The stand-in counts 11 tokens whatever it gets, and that is noticed.
            assert counts["prompts_read_otherwise_total"] == 1
        assert not await backend.is_ready()
        with pytest.raises(EngineClosed):
            await answer(backend, ask("say a cat"))

    run(task)


def test_an_engine_that_is_killed_breaks_its_answers_off_and_is_back_by_itself(hf_folder: Path) -> None:
    async def task() -> None:
        async with serving(hf_folder, "--slow", "0.5") as backend:
            deltas = backend.chat(ask("wait"))
            assert (await anext(deltas)).text == "one"
            engine_of(family(backend.process.pid)).kill()
            with pytest.raises(EngineClosed, match="closed the connection before the answer ended"):
                await anext(deltas)
            await until(lambda: backend.process.state != "ready")
            with pytest.raises(EngineClosed, match="being restarted"):
                await answer(backend, ask("say no"))
            assert not await backend.is_ready()
            await until(lambda: backend.process.state == "ready")
            assert await answer(backend, ask("say here again")) == "here again"
            assert backend.count()["engine_starts_total"] == 2

    run(task)


def test_a_server_that_says_500_because_it_is_broken_counts_as_dead(hf_folder: Path, tmp_path: Path) -> None:
    sick = tmp_path / "sick"

    async def task() -> None:
        async with serving(hf_folder, "--sick-file", str(sick), supervision=PATIENT) as backend:
            with pytest.raises(EngineFailed, match="status 500: mine alone"):
                await answer(backend, ask("status 500 mine alone"))
            assert await answer(backend, ask("say well")) == "well"
            sick.touch()
            await until(lambda: backend.process.is_broken)
            assert not await backend.is_ready()
            sick.unlink()
            await until(lambda: not backend.process.is_broken)
            assert await backend.is_ready()
            asking = asyncio.create_task(answer(backend, ask("sick 500 workers are dead")))
            async with httpx.AsyncClient(trust_env=False) as client:
                while (await client.get(f"{backend.process.url}/seen")).json()["begun"] < 3:
                    await asyncio.sleep(0.02)
            sick.touch()
            with pytest.raises(EngineClosed, match="vLLM died before the answer ended"):
                await asking
            sick.unlink()

    run(task)


def test_a_request_that_ran_at_two_deaths_is_not_asked_a_third_time(hf_folder: Path) -> None:
    async def task() -> None:
        async with serving(hf_folder) as backend:
            for num_starts in (1, 2):
                assert backend.process.num_starts == num_starts
                with pytest.raises(EngineClosed, match="closed the connection"):
                    await answer(backend, ask("die"))
                await until(lambda n=num_starts: backend.process.num_starts == n + 1)  # type: ignore[misc]
                await until(lambda: backend.process.state == "ready")
            with pytest.raises(EngineFailed, match="died 2 times while this request was running") as caught:
                await answer(backend, ask("die"))
            assert caught.value.status == 422
            assert await answer(backend, ask("say others may")) == "others may"
            assert backend.process.num_starts == 3

    run(task)


def test_what_cannot_be_is_refused_before_the_engine_sees_it(hf_folder: Path, photo: Path) -> None:
    async def task() -> None:
        async with serving(hf_folder, max_images=1) as backend:
            with pytest.raises(RequestTooLarge, match="has 2 images; at most 1"):
                await answer(backend, ask("say no", photo, photo))
            with pytest.raises(ContextTooLong):
                await answer(backend, ask("word " * 5000))
            with pytest.raises(UsageError, match="nothing to answer"):
                await answer(backend, ChatRequest((ChatMessage("assistant", ("say no",)),)))
            counts = backend.count()
            assert counts["requests_total"] == 0
            assert counts["failed_requests_total"] == 0

    run(task)


def test_an_interpreter_without_the_engine_is_told_at_once(hf_folder: Path) -> None:
    async def task() -> None:
        backend = SGLang(hf_folder, options=EngineOptions(python=sys.executable))
        with pytest.raises(LlavaError, match=r"has no sglang: install it .* --engine-python"):
            await backend.start()
        backend = SGLang(hf_folder, options=EngineOptions(python="/no/such/python"))
        with pytest.raises(UsageError, match="no interpreter '/no/such/python'"):
            await backend.start()

    run(task)


def test_an_engine_that_does_not_come_up_ends_the_start_with_its_last_words(hf_folder: Path) -> None:
    async def task() -> None:
        with pytest.raises(LlavaError, match=r"vLLM exited with code 3(?s:.*)no such kernel"):
            async with serving(hf_folder, "--fail", "no such kernel"):
                pass

    run(task)


def test_the_text_is_to_the_engines_tokenizer_what_our_prompt_is(checkpoint: Checkpoint, photo: Path) -> None:
    """With everything that a person may type, two images, and turns before."""
    image = SentImage(load_image(photo))
    messages = (
        ChatMessage("system", ("You are brief. <image>",)),
        ChatMessage("user", (image, "What is <image> in </s> this?")),
        ChatMessage("assistant", ("A cat.",)),
        ChatMessage("user", ("And", image, "here?  <s>\n")),
    )
    asked = checkpoint.ask(ChatRequest(messages))
    theirs = AutoTokenizer.from_pretrained(checkpoint.folder)
    ids = theirs(asked.text).input_ids
    assert ids.count(checkpoint.image_id) == 2 == len(asked.images)
    # An ESCAPE that has to stay costs the engine its bytes, which our own engine leaves out.
    escape = theirs("\ufdd0", add_special_tokens=False).input_ids
    text = json.dumps(ids)[1:-1]
    for noise in (escape, escape[-3:]):
        text = text.replace(json.dumps(noise)[1:-1] + ", ", "")
    assert text == json.dumps(list(asked.input_ids))[1:-1]
    assert asked.prompt_tokens == len(asked.input_ids) - 2 + asked.image_tokens


def test_the_ids_are_those_of_our_own_engine(hf_folder: Path, checkpoint: Checkpoint, photo: Path) -> None:
    from llava.backends.engine_backend import EngineBackend

    async def task() -> None:
        own = EngineBackend(load_model(hf_folder, device="cpu", dtype="float32"))
        await own.start()
        try:
            request = ask("What is in the image?", photo, sampling=Sampling(max_new_tokens=1))
            usage = [delta.usage async for delta in own.chat(request)][-1]
        finally:
            await own.stop()
        asked = checkpoint.ask(request)
        assert usage is not None
        assert (asked.prompt_tokens, asked.image_tokens) == (usage.prompt_tokens, usage.image_tokens)

    run(task)


def test_low_detail_sends_no_more_than_a_tile(checkpoint: Checkpoint, photo: Path) -> None:
    image = load_image(photo)
    high, low = (
        checkpoint.ask(ChatRequest((ChatMessage("user", (SentImage(image, detail), "Q")),)))
        for detail in ("high", "low")
    )
    assert high.images[0].size == (100, 67)
    assert low.images[0].size == (28, 19)
    assert low.prompt_tokens < high.prompt_tokens
    assert low.images[0].digest != high.images[0].digest


def test_an_answer_is_never_asked_to_leave_the_context(checkpoint: Checkpoint) -> None:
    asked = checkpoint.ask(ask("Q", sampling=Sampling(max_new_tokens=10**6)))
    assert asked.sampling.max_new_tokens == checkpoint.context_tokens - asked.prompt_tokens


def test_a_checkpoint_is_converted_once_and_again_when_it_changes(next_folder: Path, tmp_path: Path) -> None:
    import shutil

    source = shutil.copytree(next_folder, tmp_path / "model")
    first = find_hf_folder(source, tmp_path / "cache")
    written = (first / "config.json").stat().st_mtime_ns
    assert find_hf_folder(source, tmp_path / "cache") == first
    assert (first / "config.json").stat().st_mtime_ns == written
    assert find_hf_folder(first, tmp_path / "other") == first  # is what is wanted already
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "max_length": 99}))
    assert find_hf_folder(source, tmp_path / "cache") != first
    with pytest.raises(UsageError, match="original's layout"):
        Checkpoint(source)


def test_llava_hfs_newest_names_of_a_tower_are_converted_too(hf_folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    source = shutil.copytree(hf_folder, tmp_path / "model")
    tensors = load_file(source / "model.safetensors")
    renamed = {name.replace("vision_tower.vision_model.", "vision_tower."): value for name, value in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, source / "model.safetensors", {"format": "pt"})
    found = find_hf_folder(source, tmp_path / "cache")
    assert found != source
    assert load_file(found / "model.safetensors").keys() == tensors.keys()


def test_vllm_gets_one_message_that_its_template_writes_down_as_it_is(checkpoint: Checkpoint, photo: Path) -> None:
    import jinja2

    asked = checkpoint.ask(ask("What?", photo))
    (message,) = write_message(asked)
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["text", "image_url", "text"]
    # As vLLM hands parts to a template.
    parts = [part if part["type"] == "text" else {"type": "image"} for part in message["content"]]
    written = jinja2.Template(TEMPLATE, trim_blocks=True, lstrip_blocks=True).render(
        messages=[{"role": "user", "content": parts}]
    )
    assert written == asked.text


FLAGS = EngineOptions(
    tensor_parallel=2,
    data_parallel=3,
    dtype="bfloat16",
    quantization="fp8",
    memory_share=0.8,
    context_tokens=2000,
    max_images=5,
    device="cuda",
    arguments=("--enable-metrics",),
)


def read_command(words: list[str]) -> dict[str, str]:
    return {words[i]: (words[i + 1 : i + 2] or [""])[0] for i in range(len(words)) if words[i].startswith("--")}


def test_vllms_command_says_all_that_was_asked_for(hf_folder: Path) -> None:
    backend = VLLM(hf_folder, model_id="tiny", options=FLAGS)
    command = list(backend.write_command("py", Checkpoint(hf_folder, None, 2000), 1234))
    assert command[:3] == ["py", "-m", "vllm.entrypoints.openai.api_server"]
    assert command[-1] == "--enable-metrics"
    flags = read_command(command)
    expected = {"--host": "127.0.0.1", "--port": "1234", "--model": str(hf_folder), "--served-model-name": "tiny"}
    expected |= {"--tensor-parallel-size": "2", "--data-parallel-size": "3", "--dtype": "bfloat16"}
    expected |= {"--quantization": "fp8", "--gpu-memory-utilization": "0.8", "--max-model-len": "2000"}
    expected |= {"--limit-mm-per-prompt": '{"image": 5}', "--generation-config": "vllm", "--chat-template": TEMPLATE}
    assert {name: flags[name] for name in expected} == expected


def test_sglangs_command_says_all_that_was_asked_for(hf_folder: Path) -> None:
    backend = SGLang(hf_folder, model_id="tiny", options=FLAGS)
    command = list(backend.write_command("py", Checkpoint(hf_folder, None, 2000), 1234))
    assert command[:3] == ["py", "-m", "sglang.launch_server"]
    flags = read_command(command)
    expected = {"--host": "127.0.0.1", "--port": "1234", "--model-path": str(hf_folder), "--tp-size": "2"}
    expected |= {"--dp-size": "3", "--dtype": "bfloat16", "--quantization": "fp8", "--mem-fraction-static": "0.8"}
    expected |= {"--context-length": "2000", "--model-impl": "transformers", "--device": "cuda"}
    assert {name: flags[name] for name in expected} == expected
    assert len(flags["--api-key"]) == 32


def test_vllm_leaves_memory_on_a_cpu_unless_told_otherwise(hf_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, checkpoint = "VLLM_CPU_KVCACHE_SPACE", Checkpoint(hf_folder)
    monkeypatch.delenv(name, raising=False)
    assert VLLM(hf_folder)._launch("py", checkpoint).environment[name] == "4"
    told = VLLM(hf_folder, options=EngineOptions(memory_share=0.5))
    assert name not in told._launch("py", checkpoint).environment
    monkeypatch.setenv(name, "9")
    assert name not in VLLM(hf_folder)._launch("py", checkpoint).environment


def test_an_engines_defaults_are_not_overruled_unasked(hf_folder: Path) -> None:
    for backend in (VLLM(hf_folder), SGLang(hf_folder)):
        words = list(backend.write_command("py", Checkpoint(hf_folder), 1))
        for flag in ("--dtype", "--quantization", "--tp-size", "--tensor-parallel-size", "--mem-fraction-static"):
            assert flag not in words


def test_sglang_is_asked_by_its_own_words(checkpoint: Checkpoint, photo: Path) -> None:
    sampling = Sampling(0.7, top_p=0.9, max_new_tokens=9, top_k=4, min_p=0.1, seed=5, stop=("END",))
    request = ask("What?", photo, sampling=sampling, num_choices=2, top_logprobs=3)
    asked = checkpoint.ask(request)
    body = write_body(asked, request)
    assert body["text"] == asked.text
    assert len(body["image_data"]) == 1
    assert body["image_data"][0].startswith("data:image/png;base64,")
    settings = body["sampling_params"]
    expected = {"n": 2, "max_new_tokens": 9, "temperature": 0.7, "top_p": 0.9, "top_k": 4, "min_p": 0.1}
    expected |= {"sampling_seed": 5, "stop_token_ids": [2]}
    assert {name: settings[name] for name in expected} == expected
    assert "END" in settings["stop"]
    assert (body["return_logprob"], body["top_logprobs_num"]) == (True, 3)
    assert "image_data" not in write_body(checkpoint.ask(ask("What?")), ask("What?"))
    assert "json_schema" not in settings


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}, {"type": "array"}),
    ],
)
def test_engines_are_told_the_form_of_an_answer(
    hf_folder: Path, checkpoint: Checkpoint, form: dict[str, Any], schema: dict[str, Any]
) -> None:
    request = ask("echo", response_format=form)
    body = write_body(checkpoint.ask(request), request)
    assert json.loads(body["sampling_params"]["json_schema"]) == schema

    async def task() -> Any:
        async with serving(hf_folder) as backend:
            return json.loads("".join([delta.text async for delta in backend.chat(request)]))

    assert run(task)["response_format"] == form


def test_sglangs_events_are_read() -> None:
    def event(index: int, text: str, tokens: int, reason: Any = None) -> dict[str, Any]:
        about = {"prompt_tokens": 9, "completion_tokens": tokens, "cached_tokens": 4, "finish_reason": reason}
        about["output_token_logprobs"] = [[-0.5, 7, text]]
        about["output_top_logprobs"] = [[[-0.5, 7, text], [-1.5, 8, "x"]]]
        return {"text": text, "index": index, "meta_info": about}

    translation, reading = _Translation(), StreamReader(num_choices=2)
    events = [event(0, "a ", 1), event(1, "b ", 1), event(0, "c", 2, {"type": "length"})]
    events.append(event(1, "", 2, {"type": "stop", "matched": 2}))
    deltas = [delta for one in events for delta in reading.read(translation.translate(one))]
    assert [(delta.index, delta.text) for delta in deltas] == [(0, "a "), (1, "b ")]
    assert deltas[0].logprobs[0].top == (("a ", -0.5), ("x", -1.5))
    ends = reading.finish()
    assert [(delta.index, delta.text, delta.finish_reason) for delta, _ in ends] == [
        (0, "c", "length"),
        (1, "", "stop"),
    ]
    usage = reading.usage()
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (9, 4, 4)


def test_what_sglang_gives_up_is_an_error_of_its_own() -> None:
    reading = StreamReader(num_choices=1)
    refused = {"text": "", "meta_info": {"finish_reason": {"type": "abort", "status_code": 400, "message": "odd"}}}
    with pytest.raises(EngineFailed, match="status 400: odd"):
        reading.read(_Translation().translate(refused))
    with pytest.raises(EngineClosed, match="aborted the answer"):
        reading.read(_Translation().translate({"text": "", "meta_info": {"finish_reason": {"type": "abort"}}}))
    with pytest.raises(EngineFailed, match="cannot be parsed"):
        _Translation().translate({"text": "a"})


def parse(*words: str) -> argparse.Namespace:
    return build_parser().parse_args(["serve", *words])


def test_the_flags_of_the_command_reach_the_engine() -> None:
    from llava.backends import vllm

    words = "--engine vllm M --tp 2 --dp 3 --dtype float16 --quantization awq --memory-share 0.5 --context 99"
    words += " --engine-python py --engine-start-s 7 --engine-arg=--enable-metrics --conv-mode v1 --name us"
    backend = vllm.from_flags(parse(*words.split()), Settings(limits=Limits(images=4)))
    assert backend.model_id == "us"
    assert backend.options == EngineOptions("py", 2, 3, "float16", "awq", 0.5, 99, None, 4, "v1", ("--enable-metrics",))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--engine vllm M --model-base B", "--model-base is for the own engine"),
        ("--engine sglang M --memory 1G", "use --memory-share"),
        ("--engine vllm M --quant int8", "use --quantization"),
        ("--engine vllm M --arithmetic int8", "leave it out"),
        ("--engine vllm M --no-merge", "--no-merge is for the own engine"),
        ("--engine vllm M --engine-start-s 0", "startup timeout is 0.0 s; it has to be above 0"),
        ("--engine vllm M --engine-start-s nan", "startup timeout is nan s; it has to be above 0"),
        ("--engine sglang M --tp 0", "tensor parallel is 0"),
        ("--engine vllm M --memory-share 1.5", "memory share is 1.5"),
        ("--engine vllm M --engine-url http://x", "leave one out"),
        ("--engine ghost M", "no engine 'ghost'"),
        ("--engine-url http://x --model M", "no effect on a running engine"),
    ],
)
def test_flags_that_mean_nothing_are_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    from llava.cli import main

    assert main(["serve", "--port", "0", *words.split()]) == 2
    assert said in capsys.readouterr().err
