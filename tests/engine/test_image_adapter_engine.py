"""An image adapter in the engine: active from a request's first image on, and nowhere else, under any load."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from llava.engine import native_layers, paged
from llava.engine.engine import Engine
from llava.engine.gpu.gpu_fallback import find_gpu_fallback_reason
from llava.engine.request import ImageSpan, Request
from llava.engine.scheduler import Chunk
from llava.engine.step_layout import find_after_image
from llava.engine.stream import Question
from llava.image.geometry import plan_tiles
from llava.image.source import LoadedImage
from llava.model.image_adapter import add_image_adapter, at_positions, find_image_adapter
from llava.model.quantized_linear import quantize_linears
from llava.native import abi, calls, library
from llava.prompt import Prompt
from llava.sampling import Sampling
from tests.engine.gpu_path import take_gpu_path
from tests.engine.test_engine import IMAGES, audit, draw, generate, load, mixed_questions, question, tokens
from tests.engine.test_native import WIDE, make_rows, native, pytestmark
from tests.tiny import SLOT, make_model
from tests.tiny_tokenizers import words_and_letters

__all__ = ["native", "pytestmark"]  # the fixture and the mark of the tests of kernels

ADAPTER = {"mm_image_adapter": {"rank": 5, "alpha": 10}}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return words_and_letters("the cat sat on a red mat and saw me")


def draw_adapter(model: Any) -> None:
    """Gives the adapter of a model values that change its answers."""
    torch.manual_seed(8)
    for name, parameter in model.named_parameters():
        if "image_lora" in name:
            nn.init.normal_(parameter, std=0.15)


def load_adapted(tokenizer: Any, family: str = "llama", bits: int = 16, **changes: Any) -> Any:
    loaded = load(tokenizer, family, **{**WIDE, **ADAPTER, **changes})
    draw_adapter(loaded.model)
    if bits < 16:
        quantize_linears(loaded.model, bits)
    return loaded


def say(loaded: Any, questions: list[Question], **settings: Any) -> list[list[int]]:
    """The answers of an engine that is asked all questions at once, and asked again when everything is cached."""
    with Engine(loaded, **{"memory_bytes": 2**22, "block_tokens": 16, **settings}) as engine:
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
        assert [tokens(engine.submit(asked)) for asked in questions] == said
    audit(engine)
    return said


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"block_tokens": 32, "max_step_positions": 7}),
        ("llama", {"stall_s": 0.0}),
        ("qwen2", {"max_running": 3, "max_step_positions": 50}),
    ],
)
def test_questions_with_and_without_images_together_are_answered_as_by_generate(
    tokenizer: Any, family: str, settings: dict[str, Any]
) -> None:
    loaded = load_adapted(tokenizer, family)
    questions = mixed_questions(loaded, seed=len(settings), count=10)
    assert say(loaded, questions, **settings) == [generate(loaded, asked) for asked in questions]


@pytest.mark.parametrize("way", ["torch", "gpu"])
def test_layers_of_transformers_are_adapted_at_the_same_positions(
    tokenizer: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_adapted(tokenizer)
    questions = mixed_questions(loaded, seed=3, count=6)
    expected = [generate(loaded, asked) for asked in questions]
    if way == "gpu":
        take_gpu_path(monkeypatch)
    else:
        monkeypatch.setattr(library, "load", lambda: None)
        monkeypatch.setattr(library, "status", lambda: "not here")
    with Engine(loaded, memory_bytes=2**22, max_step_positions=30) as engine:
        reason = "its image adapter is active at some positions only" if way == "gpu" else "not here"
        assert any(reason in sentence for sentence in engine.fallbacks)
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
    audit(engine)
    assert said == expected


def test_the_reason_for_transformers_layers_on_a_gpu_is_the_adapter(tokenizer: Any) -> None:
    reason = find_gpu_fallback_reason(load_adapted(tokenizer).model)
    assert reason == "its image adapter is active at some positions only"
    assert find_gpu_fallback_reason(load(tokenizer, **WIDE).model) is None


def listen(loaded: Any, asked: Question, **settings: Any) -> list[Any]:
    with Engine(loaded, memory_bytes=2**22, **settings) as engine:
        return [token for piece in engine.submit(asked) for token in piece.tokens]


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("length", [4, 60])
def test_without_an_image_the_adapter_changes_no_bit(tokenizer: Any, length: int, bits: int) -> None:
    plain, adapted = load(tokenizer, **WIDE), load_adapted(tokenizer, bits=bits)
    values = {name: value for name, value in adapted.model.state_dict().items() if "image_lora" not in name}
    if bits < 16:
        quantize_linears(plain.model, bits)
    plain.model.load_state_dict(values)
    asked = question(plain, [1, *random.Random(2).choices(range(3, 110), k=length)], logprobs=4)
    assert listen(adapted, asked) == listen(plain, asked)
    seen = question(plain, [1, 5, SLOT, 9, 11], IMAGES[2:], logprobs=4)
    assert listen(adapted, seen) != listen(plain, seen)


@pytest.mark.parametrize("image_first", [False, True])
def test_a_prefix_without_an_image_is_shared_with_questions_that_go_on_with_one(
    tokenizer: Any, image_first: bool
) -> None:
    """Of 21 common positions, a whole block is shared and a part of the next one copied."""
    loaded = load_adapted(tokenizer)
    system = [1, *random.Random(4).choices(range(3, 110), k=20)]
    text = question(loaded, [*system, 7, 8])
    seen = question(loaded, [*system, SLOT, 9, 10], IMAGES[:1])
    again = question(loaded, [*system, SLOT, 9, 11, 12], IMAGES[:1])
    other = question(loaded, [*system, SLOT, 9, 10], IMAGES[1:2])
    order = [seen, text, again, other] if image_first else [text, seen, again, other]
    expected = [generate(loaded, asked) for asked in order]
    with Engine(loaded, memory_bytes=2**22, block_tokens=16) as engine:
        for asked, ids in zip(order, expected, strict=True):
            stream = engine.submit(asked)
            assert tokens(stream) == ids
            assert stream.result is not None
            shared = 0 if asked is order[0] else 21 if asked is not again else again.prompt.num_positions - 2
            assert stream.result.cached_tokens == shared


def test_a_preempted_question_is_adapted_from_its_image_on_again(tokenizer: Any) -> None:
    loaded = load_adapted(tokenizer)
    questions = [question(loaded, [1, word, SLOT, 9], IMAGES[2:], max_new_tokens=40) for word in range(10, 13)]
    questions += [question(loaded, [1, word, 8, 9], max_new_tokens=40) for word in range(10, 13)]
    questions = [replace(asked, stop_ids=[119]) for asked in questions]
    of_position = 2 * 2 * 2 * 16 * 4  # keys and values, layers, kv heads, head size, bytes
    room = 2 * (questions[0].prompt.num_positions + 20)
    with Engine(loaded, memory_bytes=room * of_position, block_tokens=16) as engine:
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
    audit(engine)
    assert said == [generate(loaded, asked) for asked in questions]
    assert engine.stats().num_preemptions > 0


@pytest.mark.parametrize("bits", [8, 4])
def test_an_adapted_model_is_quantized_without_its_adapter(tokenizer: Any, bits: int) -> None:
    loaded = load_adapted(tokenizer, bits=bits)
    questions = mixed_questions(loaded, seed=5, count=6)
    with Engine(loaded, memory_bytes=2**22) as engine:
        assert engine._runner.fallback_reason is None
    expected = [generate(loaded, asked) for asked in questions]
    assert say(loaded, questions) == expected


def test_an_adapter_in_another_dtype_runs_through_its_own_modules(tokenizer: Any) -> None:
    loaded = load_adapted(tokenizer)
    asked = question(loaded, [1, 5, SLOT, 9, 11], IMAGES[2:])
    expected = generate(loaded, asked)
    layer = loaded.model.get_model().layers[1].mlp.down_proj
    layer.image_lora_A.to(torch.float64)
    layer.image_lora_A.register_forward_pre_hook(lambda _, rows: rows[0].double())
    layer.image_lora_A.register_forward_hook(lambda _, rows, out: out.float())
    with Engine(loaded, memory_bytes=2**22) as engine:
        assert engine._runner.fallback_reason == "not all matrices are in torch.float32"
        assert tokens(engine.submit(asked)) == expected


class AdaptedLayers:
    """The layers of one model over two caches: Transformers' own, and the native ones."""

    def __init__(self, dtype: torch.dtype, bits: int, rank: int, is_rounded: bool = False) -> None:
        model = make_model("llama", **WIDE, mm_image_adapter={"rank": rank, "alpha": 2 * rank}).eval()
        draw_adapter(model)
        model.to(dtype)
        if bits < 16:
            quantize_linears(model, bits)
        self.decoder, self.dtype = model.get_model(), dtype
        shape = (len(self.decoder.layers), 80, 2, 64, 16, dtype)
        self.slow, self.fast = paged.KVCache(*shape, torch.device("cpu")), paged.NativeKVCache(*shape)
        scratch = calls.ScratchBuffers()
        self.layers = native_layers.DecoderLayers(self.decoder, model.config, self.fast, None, scratch, is_rounded)
        paged.register()

    def run(self, counts: list[int], lengths: list[int], firsts: list[int]) -> tuple[torch.Tensor, ...]:
        """Hidden states both ways, after a step of that many positions at the end of that many of each request."""
        hidden = torch.randn(sum(counts), 64).to(self.dtype)
        rows = make_rows(counts, lengths, 64, 80)
        places = [torch.arange(n - count, n) for count, n in zip(counts, lengths, strict=True)]
        positions = torch.cat(places)
        adapted = torch.cat([place >= first for place, first in zip(places, firsts, strict=True)])
        expected = paged.run_layers(self.decoder, hidden, positions, paged.PagedStep(self.slow, rows), adapted)
        rotary = self.decoder.rotary_emb(hidden[None].float(), positions[None])
        cos, sin = (part[0].float().contiguous() for part in rotary)
        sampled = list(range(len(counts)))
        out = self.layers.run(hidden, cos, sin, positions, rows, sampled, adapted if adapted.any() else None)
        return out, expected[(rows.starts[1:] - 1).long()].float()


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float32, 16), (torch.bfloat16, 16), (torch.float32, 8), (torch.bfloat16, 4)]
)
@pytest.mark.parametrize("rank", [1, 16, 21])
@torch.inference_mode()
def test_adapted_positions_of_native_layers_are_those_of_transformers_layers(
    native: Any, dtype: torch.dtype, bits: int, rank: int
) -> None:
    layers = AdaptedLayers(dtype, bits, rank)
    torch.manual_seed(3)
    never = 10**6
    for counts, lengths, firsts in (
        ([14, 21, 4], [14, 21, 4], [never, 9, 0]),  # prompts, one of which an image divides
        ([1, 1, 1], [15, 22, 5], [never, 9, 0]),
        ([3, 5, 2], [18, 27, 7], [17, 9, 0]),
        ([40, 1, 1], [58, 28, 8], [17, 9, 0]),
        ([1, 1], [59, 29], [never, never]),
    ):
        out, expected = layers.run(counts, lengths, firsts)
        error = (out - expected).norm() / expected.norm()
        assert error < (3e-4 if dtype == torch.float32 else 6e-2)


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float32, 16), (torch.bfloat16, 16), (torch.float32, 8), (torch.bfloat16, 4)]
)
@torch.inference_mode()
def test_a_position_that_is_alone_is_computed_alike_by_any_number_of_threads(
    native: Any, dtype: torch.dtype, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = AdaptedLayers(dtype, bits, 21)
    for length, first in ((20, 9), (20, 10**6), (400, 9)):  # of 400 positions there are several KV splits
        torch.manual_seed(3)
        layers.run([length], [length], [first])
        of_threads = []
        for num_threads in (1, 2, 5):
            torch.manual_seed(4)
            with monkeypatch.context() as patched:
                patched.setattr(torch, "get_num_threads", lambda num=num_threads: num)
                out, expected = layers.run([1], [length + 1], [first])
            assert (out - expected).norm() / expected.norm() < (3e-4 if dtype == torch.float32 else 6e-2)
            of_threads.append(out)
        if length == 20:
            assert all(torch.equal(out, of_threads[0]) for out in of_threads)


@pytest.mark.parametrize("bits", [8, 4])
@torch.inference_mode()
def test_rows_in_integers_of_8_bits_are_adapted_too(native: Any, bits: int) -> None:
    exact, rounded = AdaptedLayers(torch.float32, bits, 16), AdaptedLayers(torch.float32, bits, 16, is_rounded=True)
    steps = ([33, 21], [33, 21], [10**6, 9])
    torch.manual_seed(3)
    expected, _ = exact.run(*steps)
    torch.manual_seed(3)
    out, _ = rounded.run(*steps)
    assert not torch.equal(out, expected)
    assert (out - expected).norm() / expected.norm() < 0.1


@torch.inference_mode()
def test_one_decode_step_adapts_some_requests_and_leaves_every_bit_of_the_others(native: Any) -> None:
    layers = AdaptedLayers(torch.float32, 16, 16)
    torch.manual_seed(3)
    layers.run([9, 9], [9, 9], [10**6, 2])
    torch.manual_seed(4)
    mixed, _ = layers.run([1, 1], [10, 10], [10**6, 2])
    torch.manual_seed(4)
    plain, _ = layers.run([1, 1], [10, 10], [10**6, 10**6])
    assert torch.equal(mixed[0], plain[0])
    assert not torch.allclose(mixed[1], plain[1], atol=1e-2)


def test_positions_from_the_first_image_on_are_found_in_chunks_of_any_size(tokenizer: Any) -> None:
    plan = plan_tiles(IMAGES[2].size, load(tokenizer).spec.tiling)
    rng = random.Random(6)
    for _ in range(100):
        chunks, expected = [], []
        for _ in range(rng.randint(1, 5)):
            first = rng.choice([None, rng.randrange(40)])
            images = () if first is None else (ImageSpan(first, plan, b"1"), ImageSpan(first + 50, plan, b"2"))
            start = rng.randrange(60)
            stop = start + rng.randint(1, 40)
            chunks.append(Chunk(Request(0, [5] * 100, images, 4), start, stop))
            expected += [first is not None and position >= first for position in range(start, stop)]
        found = find_after_image(chunks)
        assert (found is None) == (not any(expected))
        assert found is None or found.tolist() == expected


def test_an_adapter_is_active_in_its_own_thread_alone(tokenizer: Any) -> None:
    """Another thread's text-only call is not adapted while the engine runs Transformers' layers."""
    model = load_adapted(tokenizer).model
    assert find_image_adapter(model) is not None
    ids = torch.tensor([[1, 5, 6, 7]])
    plain = model(ids).logits
    with at_positions(torch.tensor([[False, True, True, True]])):
        assert not torch.equal(model.get_model().layers[0].mlp.up_proj(torch.ones(1, 4, 64)), plain)
    assert torch.equal(model(ids).logits, plain)


# Images whose features come with the question.


class WithEmbeddings(nn.Linear):
    """A projector that is given the language model's embeddings, as the lexical one."""

    def forward(self, features_ND: torch.Tensor, embed: Any = None) -> torch.Tensor:
        return super().forward(features_ND) + embed(features_ND[:, 0].abs().long())


def bring_features(loaded: Any, image: LoadedImage, num: int, seed: int) -> tuple[LoadedImage, Any, torch.Tensor]:
    """An image with features for ``num`` positions, its plan, and what the projector makes of them."""
    features = torch.randn(num, 32, generator=torch.Generator().manual_seed(seed))
    plan = replace(plan_tiles(image.size, loaded.spec.tiling), counted=num)
    with torch.no_grad():
        return replace(image, features=features), plan, loaded.model.project_features(features)


def ask_with_features(ids: list[int], image: LoadedImage, plan: Any) -> Question:
    prompt = Prompt(tuple(ids), None, len(ids) - 1 + plan.num_positions)
    return Question(prompt, [image], [plan], Sampling(max_new_tokens=10))


def continue_from(model: Any, ids: list[int], positions_PC: torch.Tensor) -> list[int]:
    """Greedy tokens of the model's layers alone, without a cache, with these positions in place of the slot."""
    decoder, new = model.get_model(), []
    first = ids.index(SLOT)
    with torch.no_grad():
        for _ in range(10):
            before, after = (decoder.embed_tokens(torch.tensor(part)) for part in (ids[:first], ids[first + 1 :] + new))
            embeds = torch.cat([before, positions_PC, after])[None]
            adapted = (torch.arange(embeds.shape[1]) >= first)[None]
            mask = torch.full((embeds.shape[1],) * 2, float("-inf")).triu(1)[None, None]
            places = torch.arange(embeds.shape[1])[None]
            rotary = decoder.rotary_emb(embeds, places)
            with at_positions(adapted):
                for layer in decoder.layers:
                    embeds = layer(embeds, attention_mask=mask, position_ids=places, position_embeddings=rotary)
            new.append(int(model.lm_head(decoder.norm(embeds[0, -1])).argmax()))
            if new[-1] == 119:
                break
    return new


def test_features_that_come_with_a_question_are_projected_once_and_never_encoded(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_adapted(tokenizer)
    loaded.model.get_model().mm_projector = WithEmbeddings(32, 64)
    first, plan, projected = bring_features(loaded, draw(1, 60, 40), 23, seed=1)
    second, other_plan, other_projected = bring_features(loaded, draw(2, 20, 90), 5, seed=2)
    expected = [
        continue_from(loaded.model, [1, 5, SLOT, 9, 11], projected),
        continue_from(loaded.model, [1, 5, SLOT, 9, 11], other_projected),
        continue_from(loaded.model, [1, 6, 7, SLOT, 9], projected),
    ]
    calls_of: list[int] = []
    usual = loaded.model.project_features
    with Engine(loaded, memory_bytes=2**22, max_step_positions=9) as engine:
        monkeypatch.setattr(loaded.model, "encode_images", None)
        monkeypatch.setattr(loaded.model, "project_features", lambda x: calls_of.append(len(x)) or usual(x))
        asked = [
            ask_with_features([1, 5, SLOT, 9, 11], first, plan),
            ask_with_features([1, 5, SLOT, 9, 11], second, other_plan),
            ask_with_features([1, 6, 7, SLOT, 9], first, plan),
        ]
        plain = question(loaded, [1, 5, 6])
        streams = [engine.submit(each) for each in [*asked, plain]]
        assert [tokens(stream) for stream in streams] == [*expected, generate(loaded, plain)]
        assert sorted(calls_of) == [5, 23]
        stream = engine.submit(asked[0])
        assert tokens(stream) == expected[0]
        assert stream.result is not None
        assert stream.result.cached_tokens == asked[0].prompt.num_positions - 1
    audit(engine)


def test_the_updates_that_cross_the_interface_are_none_without_an_adapter() -> None:
    update = abi.LowRank()
    assert (update.rank, update.down, update.up) == (0, None, None)


def test_a_new_adapter_changes_no_answer(tokenizer: Any) -> None:
    loaded = load(tokenizer, **WIDE)
    questions = mixed_questions(loaded, seed=2, count=4)
    expected = say(loaded, questions)
    loaded.model.config.mm_image_adapter = {"rank": 4, "alpha": 4}
    add_image_adapter(loaded.model.get_model())
    assert say(loaded, questions) == expected
