"""Real SGLang and real vLLM on a small checkpoint, against the engine of this package. Run by ``make test-engines``.

Each is started as ``llava serve --engine`` starts it, on this machine's CPU in float32. Prompts have to be the same
token for token, greedy answers letter for letter; answers come in pieces, end when nobody listens any more, and an
engine that is killed is back by itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
from PIL import Image

from llava.backends.checkpoints import find_hf_folder
from llava.backends.engine_backend import EngineBackend
from llava.backends.managed_engine import EngineOptions, ManagedEngine
from llava.backends.process import Supervision
from llava.backends.protocol import ChatMessage, ChatRequest, Delta, SentImage, Usage
from llava.backends.sglang import SGLang, write_body
from llava.backends.vllm import VLLM, write_message
from llava.errors import EngineClosed, EngineFailed
from llava.image.geometry import plan_tiles
from llava.image.source import LoadedImage, load_image
from llava.sampling import Sampling
from tests.engines.small_checkpoints import write_checkpoint

# The smallest grid is a tie for the first; the second is wider than any; the others take every canvas there is.
SIZES = [(50, 40), (1000, 334), (336, 336), (300, 1200), (640, 480), (97, 301)]
CARE = Supervision(start_s=900, check_s=5, unresponsive_s=60, first_backoff_s=0.5, grace_s=20)
# The engines' own settings for a machine without an accelerator.
ENVIRONMENT = {"SGLANG_USE_CPU_ENGINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
ARGUMENTS = {
    "sglang": ("--attention-backend", "torch_native", "--disable-overlap-schedule", "--enable-metrics"),
    "vllm": ("--enforce-eager",),
}


NEARLY = 0.05  # of natural log-probabilities


class Loop:
    """An event loop in a thread, in which an engine is looked after while tests come and go."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, task: Coroutine[Any, Any, Any], seconds: float = 900) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(seconds)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Pair:
    """An engine and ours with the same checkpoint."""

    loop: Loop
    engine: ManagedEngine
    own: EngineBackend
    kind: str

    def answer(self, request: ChatRequest) -> tuple[str, Usage]:
        return self._answer(self.engine, request)

    def oracle(self, request: ChatRequest) -> tuple[str, Usage]:
        return self._answer(self.own, request)

    def _answer(self, backend: Any, request: ChatRequest) -> tuple[str, Usage]:
        deltas: list[Delta] = self.loop.run(read(backend, request))
        usage = deltas[-1].usage
        assert usage is not None
        return "".join(delta.text for delta in deltas if delta.index == 0), usage

    def read_ids(self, request: ChatRequest) -> list[int]:
        """What the engine says that the prompt's ids were."""
        return self.loop.run(read_ids(self.engine, request))


async def read(backend: Any, request: ChatRequest) -> list[Delta]:
    return [delta async for delta in backend.chat(request)]


async def read_ids(engine: ManagedEngine, request: ChatRequest) -> list[int]:
    asked = engine.checkpoint.ask(request)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {engine._key}"}, timeout=120) as client:
        if isinstance(engine, SGLang):
            body = {**write_body(asked, request), "stream": False, "return_prompt_token_ids": True}
            answer = (await client.post(f"{engine.process.url}/generate", json=body)).json()
            return (
                answer["prompt_token_ids"] if "prompt_token_ids" in answer else answer["meta_info"]["prompt_token_ids"]
            )
        body = {"model": engine.model_id, "messages": write_message(asked), "max_tokens": 1, "return_token_ids": True}
        body["add_special_tokens"] = True
        answer = (await client.post(f"{engine.process.url}/v1/chat/completions", json=body)).json()
        return answer["prompt_token_ids"]


def draw(size: tuple[int, int]) -> LoadedImage:
    red, green = Image.linear_gradient("L").resize(size), Image.radial_gradient("L").resize(size)
    return load_image(Image.merge("RGB", (red, green, red.transpose(Image.Transpose.ROTATE_180))))


def ask(*parts: str | tuple[int, int], **settings: Any) -> ChatRequest:
    sampling = settings.pop("sampling", Sampling(max_new_tokens=16))
    written = tuple(part if isinstance(part, str) else SentImage(draw(part)) for part in parts)
    return ChatRequest((ChatMessage("user", written),), sampling, **settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    for name, is_next in (("1.6", True), ("1.5", False)):
        write_checkpoint(root / f"tiny-{name}", is_next=is_next)
    return {name: find_hf_folder(root / f"tiny-{name}", root / "cache") for name in ("1.6", "1.5")}


@pytest.fixture(scope="module", params=["sglang 1.6", "sglang 1.5", "vllm 1.6", "vllm 1.5"])
def pair(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[Pair]:
    name, kind = request.param.split()
    python = request.config.getoption(f"--{name}-python")
    if python is None:
        pytest.skip(f"--{name}-python was not given")
    options = EngineOptions(
        python=python,
        dtype="float32",
        device="cpu" if name == "sglang" else None,
        memory_share=0.1 if name == "sglang" else None,
        arguments=ARGUMENTS[name],
    )
    made = {"sglang": SGLang, "vllm": VLLM}[name]
    loop = Loop()
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in ENVIRONMENT.items():
            patch.setenv(variable, value)
        engine = made(folders[kind], model_id="tiny", options=options, supervision=CARE, on_progress=print)
        own = EngineBackend(folders[kind], loading={"device": "cpu", "dtype": "float32"})
        try:
            loop.run(own.start())
            loop.run(engine.start())
            yield Pair(loop, engine, own, kind)
        finally:
            family = family_of(engine)
            loop.run(engine.stop())
            loop.run(own.stop())
            loop.close()
        assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def family_of(engine: ManagedEngine) -> list[psutil.Process]:
    """The engine's processes, its first one first."""
    if engine._process is None or engine._process.pid is None:
        return []
    return psutil.Process(engine._process.pid).children(recursive=True)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_prompt_ids_and_greedy_text_are_ours(pair: Pair, size: tuple[int, int]) -> None:
    request = ask(size, "What is in the image?")
    asked = pair.engine.checkpoint.ask(request)
    plan = plan_tiles(asked.images[0].size, pair.engine.checkpoint.spec.tiling)
    image_id = pair.engine.checkpoint.image_id
    expected = [one for token in asked.input_ids for one in [token] * (plan.num_positions if token == image_id else 1)]
    ids = pair.read_ids(request)
    assert len(ids) == len(expected)
    if image_id in ids:  # SGLang may have put the images' fingerprints in these places
        assert ids == expected
    else:
        assert [one for one, other in zip(ids, expected, strict=True) if other != image_id] == [
            other for other in expected if other != image_id
        ]
    (text, usage), (our_text, our_usage) = pair.answer(request), pair.oracle(request)
    assert usage.prompt_tokens == our_usage.prompt_tokens == len(expected)
    assert usage.image_tokens == our_usage.image_tokens
    assert text
    assert_same(pair, request, text, our_text)


def test_images_are_told_apart(pair: Pair) -> None:
    """Equal texts would prove nothing if every image gave the same one."""
    texts = {pair.oracle(ask(size, "What is in the image?"))[0] for size in SIZES}
    assert len(texts) > 1


OTHERS = {
    "no image": ask("What is in the image?"),
    "two images": ask((50, 40), (640, 480), "What is in the image?"),
    "an image between words": ask("The quick", (336, 336), "brown fox"),
    "blanks and lines": ask((336, 336), "  What\n\nis   in  "),
    "several turns": ChatRequest(
        (
            ChatMessage("system", ("You are helpful",)),
            ChatMessage("user", (SentImage(draw((336, 336))), "What is in the image?")),
            ChatMessage("assistant", ("A cat.",)),
            ChatMessage("user", (SentImage(draw((97, 301))), "And the dog?")),
        ),
        Sampling(max_new_tokens=16),
    ),
    "penalties": ask("numbers", sampling=Sampling(max_new_tokens=16, frequency_penalty=1.0, presence_penalty=0.5)),
}


@pytest.mark.parametrize("request_", OTHERS.values(), ids=OTHERS.keys())
def test_other_chats_are_ours_too(pair: Pair, request_: ChatRequest) -> None:
    (text, usage), (our_text, our_usage) = pair.answer(request_), pair.oracle(request_)
    assert usage.prompt_tokens == our_usage.prompt_tokens
    assert_same(pair, request_, text, our_text)


def assert_same(pair: Pair, request: ChatRequest, text: str, our_text: str) -> None:
    """Letter for letter, up to a token where our own two best are nearly equally likely.

    Both engines shrink images with torchvision, whose pixels differ from Pillow's by 1 of 255 here and there.
    """
    if text == our_text:
        return
    deltas: list[Delta] = pair.loop.run(read(pair.own, replace(request, top_logprobs=2)))
    said = ""
    for one in [one for delta in deltas for one in delta.logprobs]:
        if not text.startswith((said + one.token).strip()):
            margin = one.top[0][1] - one.top[1][1]
            print(f"differs after {said!r}: {one.token!r} is ahead of {one.top[1][0]!r} by {margin:.4f}")
            assert text.startswith((said + one.top[1][0]).strip()), f"{text!r}, ours {our_text!r}"
            assert margin < NEARLY, f"{text!r}, ours {our_text!r}"
            return
        said += one.token
    raise AssertionError(f"{text!r}, ours {our_text!r}")


def test_a_typed_slot_is_no_image(pair: Pair) -> None:
    """Nor does it harm: SGLang answers 500 to a lone <image> in a text, or ends."""
    for parts in (("What is <image> in </s> it?",), ((336, 336), "What is <image> in it?")):
        asked = pair.engine.checkpoint.ask(ask(*parts))
        ids = pair.read_ids(ask(*parts))
        assert asked.input_ids.count(pair.engine.checkpoint.image_id) == len(asked.images)
        if not asked.images:
            assert pair.engine.checkpoint.image_id not in ids
        pair.answer(ask(*parts))
    assert pair.engine.process.num_starts == 1


def test_stop_texts_choices_and_log_probabilities(pair: Pair) -> None:
    whole, _ = pair.answer(ask("numbers and"))
    stop = whole[3:6]
    text, _ = pair.answer(ask("numbers and", sampling=Sampling(max_new_tokens=16, stop=(stop,))))
    assert text == whole[: whole.index(stop)].rstrip()
    deltas: list[Delta] = pair.loop.run(read(pair.engine, ask("numbers", num_choices=2, top_logprobs=2)))
    said = ["".join(delta.text for delta in deltas if delta.index == index) for index in range(2)]
    assert said[0] == said[1] == pair.answer(ask("numbers"))[0]
    told = [one for delta in deltas if delta.index == 0 for one in delta.logprobs]
    ours: list[Delta] = pair.loop.run(read(pair.own, ask("numbers", top_logprobs=2)))
    expected = [one for delta in ours for one in delta.logprobs]
    assert [one.logprob for one in told] == pytest.approx([one.logprob for one in expected], abs=1e-3)
    assert all(len(one.top) == 2 for one in told)
    drawn = ask("numbers", sampling=Sampling(1.0, max_new_tokens=24, top_p=0.9), num_choices=2)
    deltas = pair.loop.run(read(pair.engine, drawn))
    assert {delta.index for delta in deltas if delta.finish_reason} == {0, 1}


def test_an_answer_has_the_form_that_was_asked_for(pair: Pair) -> None:
    """A model of random weights says nothing sensible, but says it in that form."""

    def form(schema: dict[str, Any]) -> dict[str, Any]:
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}

    long = Sampling(max_new_tokens=64)
    for answer in (pair.answer, pair.oracle):
        said = answer(ask("numbers", response_format=form({"type": "string", "enum": ["yes", "no"]})))[0]
        assert said in ('"yes"', '"no"')
        assert answer(ask("numbers", sampling=long, response_format={"type": "json_object"}))[0].startswith("{")
    with pytest.raises(EngineFailed) as refused:
        pair.answer(ask("numbers", response_format=form({"type": "nonsense"})))
    assert refused.value.status == 400
    assert pair.answer(ask("numbers"))[0]
    assert pair.engine.process.num_starts == 1


def test_an_answer_comes_in_pieces(pair: Pair) -> None:
    async def listen() -> list[float]:
        began = time.monotonic()
        request = ask((336, 336), "Q", sampling=Sampling(max_new_tokens=64))
        return [time.monotonic() - began async for delta in pair.engine.chat(request) if delta.text]

    times = pair.loop.run(listen())
    assert len(times) > 8
    assert times[0] < times[-1] / 2


def skip_what_needs_no_second_look(pair: Pair) -> None:
    if pair.kind == "1.5":
        pytest.skip("the same process with another model: looked at with LLaVA-1.6")


async def count_running(engine: ManagedEngine) -> float:
    names = ("vllm:num_requests_running", "sglang:num_running_reqs")
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {engine._key}"}, timeout=10) as client:
        page = (await client.get(f"{engine.process.url}/metrics")).text
    found = [line.rsplit(" ", 1)[1] for line in page.splitlines() if line.split("{")[0].strip() in names]
    assert found, page[:2000]
    return sum(map(float, found))


def test_who_leaves_frees_the_engine(pair: Pair) -> None:
    skip_what_needs_no_second_look(pair)

    async def leave() -> float:
        long = ask((640, 480), "Q", sampling=Sampling(max_new_tokens=4000))
        deltas = pair.engine.chat(long)
        await anext(deltas)
        began = time.monotonic()
        while await count_running(pair.engine) < 1:
            assert time.monotonic() - began < 30, "the request is not seen running"
            await asyncio.sleep(0.1)
        await deltas.aclose()  # type: ignore[attr-defined]
        left = time.monotonic()
        while await count_running(pair.engine):
            assert time.monotonic() - left < 20, "the request still runs"
            await asyncio.sleep(0.1)
        return time.monotonic() - left

    seconds = pair.loop.run(leave())
    print(f"freed after {seconds:.1f} s")
    assert pair.answer(ask("Q"))[0] == pair.oracle(ask("Q"))[0]


@pytest.mark.parametrize("which", ["first", "last"])
def test_a_killed_engine_is_back_by_itself(pair: Pair, which: str) -> None:
    """Whichever of its processes is killed: the running answer breaks off, others are refused, then all is well."""
    skip_what_needs_no_second_look(pair)
    num_starts = pair.engine.process.num_starts

    async def kill() -> None:
        deltas = pair.engine.chat(ask((336, 336), which, sampling=Sampling(max_new_tokens=4000)))
        await anext(deltas)
        family_of(pair.engine)[0 if which == "first" else -1].kill()
        with pytest.raises(EngineClosed):
            async for _ in deltas:
                pass
        while await pair.engine.is_ready():
            await asyncio.sleep(0.1)
        with pytest.raises(EngineClosed, match="being restarted"):
            await read(pair.engine, ask("Q"))
        while not await pair.engine.is_ready():
            await asyncio.sleep(0.2)

    pair.loop.run(kill())
    assert pair.engine.process.num_starts == num_starts + 1
    request = ask((50, 40), "What is in the image?")
    assert pair.answer(request)[0] == pair.oracle(request)[0]
