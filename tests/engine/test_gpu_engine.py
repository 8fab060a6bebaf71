"""The engine on a GPU, run on a CPU by torch: its answers are those of ``generate`` under any load.

Tests of ``test_engine`` that are imported here run once more, with engines as on a GPU.
"""

from __future__ import annotations

import copy
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn

from llava.engine import runner
from llava.engine.choose import choose
from llava.engine.engine import Engine
from llava.engine.gpu import device_choice, reference
from llava.engine.gpu.gpu_fallback import find_gpu_fallback_reason
from llava.engine.launched_step import LaunchedStep
from llava.engine.sampler import Sampler
from llava.model.quantized_linear import QuantizedLinear, quantize_linears
from llava.model.weights import write_tensors
from tests.engine.gpu_path import take_gpu_path
from tests.engine.test_engine import (  # noqa: F401
    IMAGES,
    audit,
    generate,
    load,
    mixed_questions,
    question,
    test_a_cache_too_small_for_all_changes_nothing,
    test_a_model_may_come_from_inference_mode_or_change_its_dtype,
    test_an_answer_can_be_cancelled_in_every_state,
    test_an_error_in_sampling_or_delivery_ends_that_answer_alone,
    test_equal_seeds_give_equal_answers,
    test_log_probabilities_are_the_ones_of_the_model,
    test_nan_logits_fail_their_request_alone,
    test_one_bad_image_fails_alone,
    test_other_code_can_run_the_model_at_the_same_time,
    test_text_is_streamed_in_pieces_and_ends_at_a_stop_text,
    test_two_engines_of_one_model_do_not_disturb_each_other,
    test_weights_that_change_during_answers_leave_no_stale_cache,
    tokens,
)
from tests.tiny import SLOT, make_model
from tests.tiny_tokenizers import words_and_letters


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    take_gpu_path(monkeypatch)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return words_and_letters("the cat sat on a red mat and saw me")


@pytest.fixture(scope="module")
def loaded(tokenizer: Any) -> Any:
    return load(tokenizer)


@pytest.fixture
def engine(loaded: Any, on_a_gpu: None) -> Iterator[Engine]:
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        yield engine
    audit(engine)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"max_running": 3}),
        ("mistral", {"block_tokens": 4, "max_step_positions": 40}),
        ("qwen2", {"block_tokens": 1, "stall_s": 0.0}),
    ],
)
def test_the_engine_says_what_generate_says(tokenizer: Any, family: str, settings: dict[str, Any]) -> None:
    changes = {"sliding_window": 24} if family == "mistral" else {}
    loaded = load(tokenizer, family, **changes)
    questions = mixed_questions(loaded, seed=4, count=10)
    expected = [generate(loaded, asked) for asked in questions]
    with Engine(loaded, memory_bytes=2**21, **settings) as engine:
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
        again = [tokens(engine.submit(asked)) for asked in questions]
        assert engine.fallbacks == ()
    audit(engine)
    assert said == again == expected
    assert [generate(loaded, asked) for asked in questions] == expected, "joining changed a weight"


FALLBACKS = {
    "a module has a hook": lambda model: model.model.layers[1].mlp.up_proj.register_forward_hook(lambda *given: None),
    "the embeddings, the last norm, RoPE or the head has a hook": lambda model: model.lm_head.register_forward_hook(
        lambda *given: None
    ),
    "a matrix is quantized in another way or has an adapter": lambda model: setattr(
        model.model.layers[0].self_attn, "q_proj", type("Linear8bitLt", (nn.Linear,), {})(48, 48)
    ),
    "a LlamaAttention has other parts than usual": lambda model: setattr(
        model.model.layers[0].self_attn, "q_norm", nn.Identity()
    ),
    "the activation is GELU": lambda model: setattr(model.model.layers[1].mlp, "act_fn", nn.GELU()),
    "two modules share a matrix": lambda model: setattr(
        model.model.layers[1].mlp, "up_proj", model.model.layers[0].mlp.up_proj
    ),
    "not all of the decoder is in torch.float32": lambda model: model.model.layers[1].mlp.half(),
}


@pytest.mark.parametrize("reason", FALLBACKS)
def test_what_the_fused_layers_cannot_run_goes_through_transformers_layers_and_is_said(reason: str) -> None:
    model = make_model("llama")
    assert find_gpu_fallback_reason(model) is None
    FALLBACKS[reason](model)
    assert find_gpu_fallback_reason(model) == reason


def test_a_hook_runs_and_is_named_and_its_end_is_noticed(tokenizer: Any) -> None:
    loaded = load(tokenizer)
    asked = question(loaded, [1, 5, SLOT, 6, 7], IMAGES[:1])
    expected = generate(loaded, asked)
    calls = []
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        assert tokens(engine.submit(asked)) == expected
        hook = loaded.model.model.layers[0].mlp.register_forward_hook(lambda *given: calls.append(1))
        assert tokens(engine.submit(asked)) == expected
        assert engine.fallbacks == (
            "The decoder runs through Transformers' layers, which is slower: a module has a hook.",
        )
        num_calls = len(calls)
        assert num_calls >= len(expected)
        hook.remove()
        assert tokens(engine.submit(asked)) == expected
        assert engine.fallbacks == ()
        assert len(calls) == num_calls
    audit(engine)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantized_model_says_what_its_matrices_say(tokenizer: Any, bits: int) -> None:
    loaded = load(tokenizer, "qwen2", hidden_size=64, intermediate_size=96, head_dim=16)
    quantize_linears(loaded.model, bits)
    questions = mixed_questions(loaded, seed=bits, count=6)
    expected = [generate(loaded, asked) for asked in questions]
    with Engine(loaded, memory_bytes=2**21, block_tokens=4) as engine:
        assert engine.fallbacks == ()
        assert [tokens(stream) for stream in [engine.submit(asked) for asked in questions]] == expected
    assert [generate(loaded, asked) for asked in questions] == expected
    assert type(loaded.model.model.layers[0].self_attn.q_proj) is QuantizedLinear


def test_joined_parameters_are_saved_copied_and_changed_as_before(tokenizer: Any, tmp_path: Path) -> None:
    loaded = load(tokenizer, "qwen2")
    model, asked = loaded.model, replace(question(loaded, [1, 5, 6, 7]), stop_ids=[119])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = copy.deepcopy(model)
    with Engine(loaded, memory_bytes=2**20) as engine:
        engine.submit(asked).wait()
        attention = model.model.layers[0].self_attn
        assert attention.k_proj.weight.data_ptr() == attention.q_proj.weight.data_ptr() + attention.q_proj.weight.nbytes
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert sum(one.numel() for one in copy.deepcopy(model).parameters()) == sum(
            one.numel() for one in model.parameters()
        )
        write_tensors(((name, value) for name, value in model.state_dict().items()), tmp_path, 2**30)
        saved = load_file(tmp_path / "model.safetensors")
        assert all(torch.equal(saved[name], value) for name, value in before.items())
        with torch.no_grad():  # in place, by a state dict, and by other parameters
            attention.v_proj.weight.mul_(-1)
            assert tokens(engine.submit(asked)) == generate(loaded, asked)
            model.load_state_dict(copied.state_dict())
            assert tokens(engine.submit(asked)) == generate(loaded, asked)
            attention.q_proj.weight = nn.Parameter(attention.q_proj.weight + 1)
            attention.k_proj.bias = nn.Parameter(attention.k_proj.bias - 1)
            assert tokens(engine.submit(asked)) == generate(loaded, asked)
    audit(engine)


def test_a_request_longer_than_the_rows_tables_is_answered_too(tokenizer: Any) -> None:
    loaded = load(tokenizer)
    loaded.context_tokens = 12
    questions = [question(loaded, [1, 5, 6], max_new_tokens=30), question(loaded, [1, 5, SLOT, 7], IMAGES[:1])]
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
    assert said == [generate(loaded, asked) for asked in questions]


@pytest.mark.parametrize("fill", [0.0, float("nan")])
def test_padding_rows_and_unused_slots_never_matter(tokenizer: Any, fill: float) -> None:
    loaded = load(tokenizer, "mistral", sliding_window=6)
    # Three are padded to four rows.
    questions = [replace(asked, stop_ids=[119]) for asked in mixed_questions(loaded, seed=3, count=3)]
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        engine._runner.cache._all.fill_(fill)  # type: ignore[attr-defined]
        engine._runner._gpu._rows.tokens.fill_(99)  # type: ignore[union-attr]
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
    assert said == [generate(loaded, asked) for asked in questions]


def test_decoding_runs_one_step_ahead_and_wastes_one_position_at_most(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device runs a step before the tokens of the step before it are read; none past an end is delivered."""
    events: list[str] = []
    asked = question(loaded, [1, 5, 6, 7], max_new_tokens=20)
    expected = generate(loaded, asked)
    end = next(i for i, token in enumerate(expected) if i > 5 and token not in expected[:i])
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        launch = engine._runner.launch

        def launch_and_tell(step: Any, sampler_of: Any) -> Any:
            launched = launch(step, sampler_of)
            wait, number = launched.wait, len([event for event in events if event[0] == "l"])
            events.append(f"launch {number}")
            launched.wait = lambda: events.append(f"read {number}") or wait()
            return launched

        monkeypatch.setattr(engine._runner, "launch", launch_and_tell)
        assert tokens(engine.submit(replace(asked, stop_ids=[expected[end]]))) == expected[: end + 1]
    audit(engine)
    # Step 0 is the prompt; each later one is launched before the one before it is read.
    ahead = [f"{what} {i + (what == 'launch')}" for i in range(1, end) for what in ("launch", "read")]
    assert events == ["launch 0", "read 0", "launch 1", *ahead, f"launch {end + 1}", f"read {end}"]


def test_a_cancelled_answer_takes_its_pending_token_with_it(loaded: Any) -> None:
    others = mixed_questions(loaded, seed=12, count=4)
    expected = [generate(loaded, asked) for asked in others]
    for num_pieces in range(1, 8):
        with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
            streams = [engine.submit(asked) for asked in others]
            cancelled = engine.submit(question(loaded, [1, 5, 9], max_new_tokens=500))
            pieces = [piece for _, piece in zip(range(num_pieces), cancelled, strict=False)]
            cancelled.cancel()
            pieces += list(cancelled)
            assert cancelled.result is not None
            assert sum(len(piece.tokens) for piece in pieces) == cancelled.result.new_tokens
            assert [tokens(stream) for stream in streams] == expected
        audit(engine)


def test_an_image_is_cut_by_the_thread_that_asks_about_it(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    cut = runner.make_pixels
    monkeypatch.setattr(
        runner, "make_pixels", lambda *given: threads.append(threading.current_thread().name) or cut(*given)
    )
    asked = question(loaded, [1, 5, SLOT, 6], IMAGES[:1])
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        for _ in range(2):
            assert tokens(engine.submit(asked)) == generate(loaded, asked)
        assert threads == [threading.current_thread().name], "once: then the features are known"
        engine.reset_cache()
        monkeypatch.setattr(engine._runner._pixels, "_max_bytes", 10)  # dropped, so the engine cuts it
        assert tokens(engine.submit(asked)) == generate(loaded, asked)
        assert threads[-1] == "llava-engine"
        assert engine._runner._pixels._num_bytes == 0


SAMPLED: list[dict[str, Any]] = [
    {"temperature": 0.9},
    {"temperature": 1.5, "top_k": 7},
    {"temperature": 2.0, "top_p": 0.95},
    {"temperature": 1.0, "min_p": 0.05, "top_p": 0.8},
    {"temperature": 0.0},
]


@pytest.mark.parametrize("num_candidates", [1024, 3])
def test_tokens_drawn_on_the_device_are_those_drawn_one_request_at_a_time(
    loaded: Any, monkeypatch: pytest.MonkeyPatch, num_candidates: int
) -> None:
    """Also where the candidates were too few: then the host chooses, and the device runs that position again."""
    corrected: list[int] = []
    cancel = LaunchedStep.cancel
    monkeypatch.setattr(
        LaunchedStep, "cancel", lambda self, requests: corrected.append(len(requests)) or cancel(self, requests)
    )
    asked = [
        question(loaded, [1, 5, 6, 7 + i], seed=i, max_new_tokens=12 + i, **SAMPLED[i % len(SAMPLED)]) for i in range(7)
    ]
    with monkeypatch.context() as changed:  # every token through the slow reference
        changed.setattr(device_choice, "_suits_device", lambda sampler: False)
        changed.setattr(Sampler, "is_plain", property(lambda self: False))
        with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
            expected = [tokens(engine.submit(each)) for each in asked]
    monkeypatch.setattr(device_choice, "NUM_CANDIDATES", num_candidates)
    monkeypatch.setattr("llava.engine.choose.choose", lambda *given: choose(*given, num_candidates=num_candidates))
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        said = [tokens(stream) for stream in [engine.submit(each) for each in asked]]
        alone = tokens(engine.submit(asked[2]))
    audit(engine)
    assert said == expected
    assert alone == expected[2]
    assert (sum(corrected) > 0) == (num_candidates == 3)


def test_the_triton_kernels_give_the_same_answers_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    command = [sys.executable, "-W", "ignore", "-m", "tests.engine.interpreted_engine"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "equal\n", "")


def test_adapters_run_apart_through_transformers_layers_and_merged_through_the_fused_ones(tokenizer: Any) -> None:
    loaded = load(tokenizer)
    asked = [replace(one, stop_ids=[119]) for one in mixed_questions(loaded, seed=8, count=3)]
    plain = [generate(loaded, one) for one in asked]
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        assert [tokens(engine.submit(one)) for one in asked] == plain
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False)
        loaded.model.add_adapter(config)
        adapted = [generate(loaded, one) for one in asked]
        assert adapted != plain
        assert [tokens(stream) for stream in [engine.submit(one) for one in asked]] == adapted
        assert "a matrix is quantized in another way or has an adapter" in engine.fallbacks[0]
        for layer in loaded.model.model.layers:
            for parent, name in ((layer.self_attn, "q_proj"), (layer.self_attn, "v_proj"), (layer.mlp, "up_proj")):
                getattr(parent, name).merge()
                setattr(parent, name, getattr(parent, name).get_base_layer())
        assert [tokens(stream) for stream in [engine.submit(one) for one in asked]] == adapted
        assert engine.fallbacks == ()
    audit(engine)


@pytest.mark.parametrize("seed", range(3))
def test_any_mix_of_requests_is_answered_as_each_alone(loaded: Any, seed: int) -> None:
    """Sampled and greedy, cancelled and ended by tokens, in a cache that is too small: each answer is its own."""
    rng = random.Random(seed)
    asked = []
    for i, one in enumerate(mixed_questions(loaded, seed=20 + seed, count=9)):
        settings = rng.choice([{}, {}, {"temperature": 1.2}, {"temperature": 0.8, "top_p": 0.9}, {"logprobs": 1}])
        penalties = rng.choice([{}, {}, {"presence_penalty": 0.5}])
        sampling = replace(one.sampling, seed=i, max_new_tokens=rng.randint(1, 24), **settings, **penalties)
        asked.append(replace(one, sampling=sampling, stop_ids=rng.sample(range(120), 4)))
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        alone = [tokens(engine.submit(one)) for one in asked]
    num_positions = max(one.prompt.num_positions for one in asked) + 40
    room = num_positions * 2 * 2 * 2 * 12 * 4  # keys and values, layers, kv heads, head size, bytes
    with Engine(loaded, memory_bytes=room, block_tokens=4, max_running=4) as engine:
        streams = [engine.submit(one) for one in asked]
        lost = [engine.submit(replace(one, salt="lost")) for one in asked[:3]]
        for stream, num_pieces in zip(lost, (1, 3, 5), strict=True):
            for _ in zip(range(num_pieces), stream, strict=False):
                pass
            stream.cancel()
        assert [tokens(stream) for stream in streams] == alone
        for stream in lost:
            stream.wait()
    audit(engine)


def test_kernels_that_do_not_run_here_are_said_and_done_without(
    loaded: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*given: Any) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    kernels = SimpleNamespace(**vars(reference))
    kernels.extend_attention = refuse
    monkeypatch.setattr(runner, "choose_kernels", lambda device: kernels)
    asked = question(loaded, [1, 5, SLOT, 6], IMAGES[:1])
    with Engine(loaded, memory_bytes=2**20, block_tokens=4) as engine:
        assert tokens(engine.submit(asked)) == generate(loaded, asked)
        assert engine._runner._gpu is None
        assert engine._runner._device_obstacle is not None
        assert "the GPU kernels do not run here: Failed to find C compiler" in engine._runner._device_obstacle
    assert "The GPU kernels do not run here." in caplog.messages
