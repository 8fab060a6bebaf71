"""Packed matrices and towers through the compiled arithmetic, beside the same in torch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llava.engine import compiled
from llava.engine.engine import Engine
from llava.model.packed import PackedLinear, pack_layer, pack_model
from llava.model.vision import SigLipVisionTower
from llava.native import calls, library, packed
from tests.engine.test_engine import audit, generate, load, mixed_questions, tokens
from tests.engine.test_native import WIDE, native, pytestmark
from tests.tiny import FAMILIES, make_model
from tests.tiny_tokenizers import words_and_letters

__all__ = ["native", "pytestmark"]  # the fixture and the mark that both files use

SHAPES = [(16, 32), (48, 64), (7, 200), (130, 33), (64, 640), (1, 5)]


def draw(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    torch.manual_seed(rows * columns)
    weight = torch.randn(rows, columns) * torch.rand(rows, 1) * 3
    weight[rows // 2, : columns // 2] = 0
    return weight.to(dtype)


def in_torch(weight: torch.Tensor, bits: int) -> packed.Packed:
    """Packed without the library."""
    usual, library.load = library.load, lambda: None  # type: ignore[assignment]
    try:
        return packed.pack(weight, bits)
    finally:
        library.load = usual


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", packed.BITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_ways_pack_alike(native: Any, shape: tuple[int, int], bits: int, dtype: torch.dtype) -> None:
    weight = draw(*shape, dtype)
    fast, slow = packed.pack(weight, bits), in_torch(weight, bits)
    assert fast.data.shape == slow.data.shape
    torch.testing.assert_close(packed.unpack(fast), packed._unpack_in_torch(fast), rtol=0, atol=0)
    # Two scales may leave errors that differ only in the order of summing; then either is as good.
    errors = [(packed.unpack(each) - weight.float()).square().sum() for each in (fast, slow)]
    torch.testing.assert_close(*errors, rtol=1e-4, atol=1e-12)
    assert (fast.data == slow.data).float().mean() > 0.98


@pytest.mark.parametrize(("bits", "error"), [(8, 0.008), (4, 0.1)])
def test_a_packed_matrix_is_near_its_original(bits: int, error: float) -> None:
    weight = draw(256, 512)
    near = packed.unpack(packed.pack(weight, bits))
    assert (near - weight).norm() / weight.norm() < error
    assert packed.pack(weight, bits).num_bytes == 256 * 512 * bits / 8 + (256 * 4 if bits == 8 else 256 * 16 * 2)


@pytest.mark.parametrize("bits", packed.BITS)
@pytest.mark.parametrize("num", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_few_rows_times_a_packed_matrix_are_those_times_what_it_stands_for(
    native: Any, shape: tuple[int, int], num: int, bits: int
) -> None:
    matrix = packed.pack(draw(*shape), bits)
    rows = torch.randn(num, shape[1])
    exact = rows.double() @ packed.unpack(matrix).double().T
    out = calls.multiply_few(rows, matrix.matrix())
    # Rows are integers of 16 bits: one part in 65000 of the largest of a row, for each number.
    bound = rows.abs().amax(1, keepdim=True) / 32512 * packed.unpack(matrix).abs().sum(1) + 1e-5
    assert ((out - exact).abs() <= bound).all()


@pytest.mark.parametrize("bits", packed.BITS)
@pytest.mark.parametrize("num", [1, 5, 6, 250, 487])
@pytest.mark.parametrize("shape", [(64, 64), (130, 33), (200, 1100), (7, 200)])
def test_many_rows_in_integers_of_8_bits_are_near(native: Any, shape: tuple[int, int], num: int, bits: int) -> None:
    matrix = packed.pack(draw(*shape), bits)
    rows = torch.randn(num, shape[1])
    exact = rows @ packed.unpack(matrix).T
    out = calls.multiply_bytes(rows, matrix.matrix())
    assert (out - exact).norm() / exact.norm() < 0.02
    # And exactly what those integers say.
    scale = rows.abs().amax(1, keepdim=True) / 127
    rounded = (rows / scale).round() * scale
    weight = packed.unpack(matrix)
    if bits == 4:  # as 8 bits with one scale a row, which fits whatever the row's largest scale allows
        of_rows = matrix.scales.float().abs().amax(1).flatten()[: shape[0], None] * 8 / 127
        weight = (weight / of_rows.clamp(min=1e-30)).round() * of_rows
    said = rounded @ weight.T
    # Half a number is rounded this way or that; in 4 bits a half of the largest scale is one.
    assert (out - said).norm() / said.norm() < (1e-3 if bits == 8 else 6e-3)


@pytest.mark.parametrize("bits", packed.BITS)
def test_what_is_no_number_stays_none(native: Any, bits: int) -> None:
    matrix = packed.pack(draw(32, 64), bits)
    rows = torch.randn(3, 64)
    rows[1, 7] = float("nan")
    for multiply in (calls.multiply_few, calls.multiply_bytes):
        out = multiply(rows, matrix.matrix())
        assert out[1].isnan().all()
        assert out[[0, 2]].isfinite().all()


def load_packed(family: str, bits: int) -> Any:
    changes = {"sliding_window": 24} if family == "mistral" else {}
    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), family, **WIDE, **changes)
    pack_model(loaded.model, bits)
    return loaded


@pytest.mark.parametrize("bits", packed.BITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_says_what_generate_says_on_packed_matrices(native: Any, family: str, bits: int) -> None:
    loaded = load_packed(family, bits)
    assert sum(isinstance(module, PackedLinear) for module in loaded.model.modules()) == 7 * 2 + 1
    questions = mixed_questions(loaded, seed=5, count=8)
    with Engine(loaded, memory_bytes=2**22) as engine:
        assert engine._runner.fallback_reason is None
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
    audit(engine)
    assert said == [generate(loaded, asked) for asked in questions]


def test_a_packed_model_runs_without_the_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_packed("llama", 4)
    questions = mixed_questions(loaded, seed=6, count=4)
    expected = [generate(loaded, asked) for asked in questions]
    monkeypatch.setattr(library, "load", lambda: None)
    monkeypatch.setattr(library, "status", lambda: "not here")
    with Engine(loaded, memory_bytes=2**22) as engine:
        assert engine._runner.fallback_reason == "not here"
        assert [tokens(engine.submit(asked)) for asked in questions] == expected


@pytest.mark.parametrize("bits", packed.BITS)
def test_prompts_in_integers_of_8_bits_give_nearly_the_same_scores(native: Any, bits: int) -> None:
    loaded = load_packed("llama", bits)
    asked = max(mixed_questions(loaded, seed=7, count=12), key=lambda each: each.prompt.num_positions)
    assert asked.prompt.num_positions > compiled.MAX_POSITIONS
    scores = {}
    for arithmetic in ("exact", "int8"):
        with Engine(loaded, memory_bytes=2**22, arithmetic=arithmetic) as engine:
            seen: list[torch.Tensor] = []
            usual = engine._runner._compute_logits
            engine._runner._compute_logits = lambda hidden, usual=usual, seen=seen: (
                seen.append(usual(hidden)) or seen[-1]
            )  # type: ignore[method-assign, func-returns-value]
            engine.submit(asked).wait()
            scores[arithmetic] = seen[0]
    assert not torch.equal(scores["exact"], scores["int8"])
    assert (scores["exact"] - scores["int8"]).norm() / scores["exact"].norm() < 0.1


def test_packing_keeps_the_dtype_of_what_is_not_packed_and_survives_a_change_of_it() -> None:
    layer = PackedLinear(packed.pack(draw(32, 64), 8), torch.zeros(32))
    before = packed.unpack(layer.packed)
    layer = layer.to(torch.bfloat16)
    assert layer.bias is not None
    assert layer.bias.dtype == torch.bfloat16
    assert layer.scales.dtype == torch.float32
    torch.testing.assert_close(packed.unpack(layer.packed), before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
def test_a_tower_through_the_library_sees_what_it_sees_through_torch(
    native: Any, activation: str, dtype: torch.dtype
) -> None:
    model = make_model("llama").eval()
    tower = model.get_vision_tower()
    width = 48
    config = {**tower.config.to_dict(), "hidden_act": activation, "hidden_size": width, "num_attention_heads": 3}
    tower = type(tower).from_config(config, model.config).eval().to(dtype)
    torch.manual_seed(4)
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert compiled.find_tower_obstacle(tower) is None
    pixels = torch.randn(3, 3, tower.image_size, tower.image_size).to(dtype)
    with torch.inference_mode():
        expected, out = tower(pixels), compiled.TowerLayers(tower, calls.Scratch()).run(pixels)
    assert out.dtype == dtype
    limit = 1e-4 if dtype == torch.float32 else 4e-2
    assert (out - expected).norm() / expected.norm() < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 2, 3, 6], ids=lambda heads: f"heads of {48 // heads}")
def test_a_siglip_tower_with_heads_of_any_size_sees_what_it_sees_through_torch(
    native: Any, heads: int, dtype: torch.dtype
) -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": heads}
    config = {"model_type": "siglip_vision_model", **sizes, "image_size": 30, "patch_size": 7}
    tower = SigLipVisionTower.from_config(config, SimpleNamespace(mm_vision_select_layer=-2)).eval().to(dtype)
    torch.manual_seed(4)
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert compiled.find_tower_obstacle(tower) is None
    layers = compiled.TowerLayers(tower, calls.Scratch())
    for num_tiles in (3, 1):
        pixels = torch.randn(num_tiles, 3, 30, 30).to(dtype)
        with torch.inference_mode():
            expected, out = tower(pixels), layers.run(pixels)
        assert out.shape == (num_tiles, 16, 48)
        limit = 1e-4 if dtype == torch.float32 else 4e-2
        assert (out - expected).norm() / expected.norm() < limit


def test_widening_a_projector_leaves_the_models_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks looks at the model's weights, in a thread of their own, while a picture is encoded."""
    monkeypatch.setattr(compiled, "cpu_has_bfloat16", lambda: False)
    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), "llama", **WIDE)
    loaded.model.to(torch.bfloat16)
    seen: list[bool] = []
    with Engine(loaded, memory_bytes=2**22, block_tokens=16) as engine:
        runner = engine._runner
        if runner._tower is None:
            pytest.skip("this tower is not run by the library")
        usual = torch.nn.functional.linear

        def look(*arguments: Any) -> torch.Tensor:
            seen.append(runner.has_new_weights())
            return usual(*arguments)

        size = loaded.model.get_vision_tower().image_size
        pixels = torch.randn(2, 3, size, size).bfloat16()
        with torch.inference_mode():
            monkeypatch.setattr(torch.nn.functional, "linear", look)
            features = runner._encode_tiles(pixels)
            expected = loaded.model.get_model().mm_projector(runner._tower.run(pixels))
    assert seen
    assert not any(seen)
    torch.testing.assert_close(features, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("way", ["dtype", "norm", "packed", "hook"])
def test_what_research_changes_in_a_layer_is_run_by_its_own_modules(native: Any, way: str) -> None:
    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), "llama", **WIDE)
    asked = mixed_questions(loaded, seed=6, count=1)[0]
    with Engine(loaded, memory_bytes=2**22, block_tokens=16) as engine:
        engine.submit(asked).wait()
        assert engine._runner._layers is not None
        layer = loaded.model.get_model().layers[1]
        if way == "dtype":
            layer.mlp.down_proj.to(torch.float64)
            layer.mlp.down_proj.register_forward_pre_hook(lambda _, rows: rows[0].double())
            layer.mlp.down_proj.register_forward_hook(lambda _, rows, out: out.float())
        elif way == "norm":
            layer.input_layernorm = nn.LayerNorm(WIDE["hidden_size"])
        elif way == "packed":
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                pack_layer(layer.self_attn, name, getattr(layer.self_attn, name).weight, 8)
            for name in ("gate_proj", "up_proj", "down_proj"):
                pack_layer(layer.mlp, name, getattr(layer.mlp, name).weight, 8)
        else:
            layer.post_attention_layernorm.register_forward_hook(lambda _, rows, out: 2 * out)
        assert tokens(engine.submit(asked)) == generate(loaded, asked)
        assert engine._runner._layers is None
    audit(engine)


def test_a_model_that_became_bfloat16_is_computed_in_it(native: Any) -> None:
    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), "llama", **WIDE)
    asked = mixed_questions(loaded, seed=6, count=1)[0]
    with Engine(loaded, memory_bytes=2**22, block_tokens=16) as engine:
        engine.submit(asked).wait()
        loaded.model.to(torch.bfloat16)
        said = tokens(engine.submit(asked))
        assert engine._runner._layers is not None
        assert engine._runner.cache.keys[0].dtype == torch.bfloat16
    with Engine(loaded, memory_bytes=2**22, block_tokens=16) as engine:
        assert tokens(engine.submit(asked)) == said


@pytest.mark.parametrize("part", ["", ".self_attn", ".mlp", ".mlp.fc1"])
@pytest.mark.parametrize("way", ["hook", "own", "class"])
def test_a_tower_that_somebody_watches_or_changes_is_run_by_torch(
    part: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = make_model("llama").get_vision_tower()
    assert compiled.find_tower_obstacle(tower) is None
    module = tower.get_submodule(f"vision_tower.vision_model.encoder.layers.0{part}")
    original = module.forward

    def replacement(*arguments: Any, **keywords: Any) -> Any:
        return original(*arguments, **keywords)

    if way == "hook":
        module.register_forward_hook(lambda *_: None)
    elif way == "own":
        module.forward = replacement
    elif part == ".mlp.fc1":
        module.__class__ = type("Adapted", (nn.Linear,), {})
    else:
        monkeypatch.setattr(type(module), "forward", replacement)
    assert compiled.find_tower_obstacle(tower) is not None
