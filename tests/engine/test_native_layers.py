"""Quantized matrices, towers and fallbacks: the native layers compared with torch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llava.engine import fallback, native_layers
from llava.engine.engine import Engine
from llava.model.quantized_linear import QuantizedLinear, quantize_linear, quantize_linears
from llava.model.vision import SigLipVisionTower
from llava.native import calls, library, quantization
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


def in_torch(weight: torch.Tensor, bits: int) -> quantization.QuantizedMatrix:
    """The matrix, quantized without the library."""
    usual, library.load = library.load, lambda: None  # type: ignore[assignment]
    try:
        return quantization.quantize(weight, bits)
    finally:
        library.load = usual


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", quantization.BITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_library_quantizes_as_torch_does(
    native: Any, shape: tuple[int, int], bits: int, dtype: torch.dtype
) -> None:
    weight = draw(*shape, dtype)
    fast, slow = quantization.quantize(weight, bits), in_torch(weight, bits)
    assert fast.data.shape == slow.data.shape
    torch.testing.assert_close(quantization.dequantize(fast), quantization._dequantize_in_torch(fast), rtol=0, atol=0)
    # Two scales may leave errors that differ only in the order of summing; then either is as good.
    errors = [(quantization.dequantize(each) - weight.float()).square().sum() for each in (fast, slow)]
    torch.testing.assert_close(*errors, rtol=1e-4, atol=1e-12)
    assert (fast.data == slow.data).float().mean() > 0.98


@pytest.mark.parametrize(("bits", "error"), [(8, 0.008), (4, 0.1)])
def test_a_quantized_matrix_is_close_to_its_original(bits: int, error: float) -> None:
    weight = draw(256, 512)
    near = quantization.dequantize(quantization.quantize(weight, bits))
    assert (near - weight).norm() / weight.norm() < error
    assert quantization.quantize(weight, bits).num_bytes == 256 * 512 * bits / 8 + (
        256 * 4 if bits == 8 else 256 * 16 * 2
    )


@pytest.mark.parametrize("bits", quantization.BITS)
@pytest.mark.parametrize("num", [1, 2, 3, 7, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_gemv_with_a_quantized_matrix_is_the_product_with_its_dequantized_numbers(
    native: Any, shape: tuple[int, int], num: int, bits: int
) -> None:
    matrix = quantization.quantize(draw(*shape), bits)
    rows = torch.randn(num, shape[1])
    exact = rows.double() @ quantization.dequantize(matrix).double().T
    out = calls.gemv(rows, matrix.matrix())
    # Rows are integers of 16 bits: one part in 65000 of the largest of a row, for each number.
    bound = rows.abs().amax(1, keepdim=True) / 32512 * quantization.dequantize(matrix).abs().sum(1) + 1e-5
    assert ((out - exact).abs() <= bound).all()


@pytest.mark.parametrize("bits", quantization.BITS)
@pytest.mark.parametrize("num", [1, 5, 6, 250, 487])
@pytest.mark.parametrize("shape", [(64, 64), (130, 33), (200, 1100), (7, 200)])
def test_gemm_int8_is_close_to_the_exact_product(native: Any, shape: tuple[int, int], num: int, bits: int) -> None:
    matrix = quantization.quantize(draw(*shape), bits)
    rows = torch.randn(num, shape[1])
    exact = rows @ quantization.dequantize(matrix).T
    out = calls.gemm_int8(rows, matrix.matrix())
    assert (out - exact).norm() / exact.norm() < 0.02
    # And it is exactly the product of these integers.
    scale = rows.abs().amax(1, keepdim=True) / 127
    rounded = (rows / scale).round() * scale
    weight = quantization.dequantize(matrix)
    if bits == 4:  # as 8 bits with one scale a row, which fits whatever the row's largest scale allows
        of_rows = matrix.scales.float().abs().amax(1).flatten()[: shape[0], None] * 8 / 127
        weight = (weight / of_rows.clamp(min=1e-30)).round() * of_rows
    said = rounded @ weight.T
    # Half a number is rounded this way or that; in 4 bits a half of the largest scale is one.
    assert (out - said).norm() / said.norm() < (1e-3 if bits == 8 else 6e-3)


@pytest.mark.parametrize("bits", quantization.BITS)
@pytest.mark.parametrize("width", [256, 288, 20000])
def test_sums_of_the_largest_numbers_do_not_overflow(native: Any, width: int, bits: int) -> None:
    weight = torch.ones(16, width)
    weight[::2] = -1
    matrix = quantization.quantize(weight, bits)
    assert torch.equal(quantization.dequantize(matrix), weight)
    for multiply in (calls.gemv, calls.gemm_int8):
        for sign in (1, -1):
            out = multiply(torch.full((5, width), float(sign)), matrix.matrix())
            torch.testing.assert_close(out, sign * weight.sum(1).expand(5, 16), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", quantization.BITS)
def test_a_nan_stays_a_nan_in_quantized_products(native: Any, bits: int) -> None:
    matrix = quantization.quantize(draw(32, 64), bits)
    rows = torch.randn(3, 64)
    rows[1, 7] = float("nan")
    for multiply in (calls.gemv, calls.gemm_int8):
        out = multiply(rows, matrix.matrix())
        assert out[1].isnan().all()
        assert out[[0, 2]].isfinite().all()


def load_quantized(family: str, bits: int) -> Any:
    changes = {"sliding_window": 24} if family == "mistral" else {}
    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), family, **WIDE, **changes)
    quantize_linears(loaded.model, bits)
    return loaded


@pytest.mark.parametrize("bits", quantization.BITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_says_what_generate_says_on_quantized_matrices(native: Any, family: str, bits: int) -> None:
    loaded = load_quantized(family, bits)
    assert sum(isinstance(module, QuantizedLinear) for module in loaded.model.modules()) == 7 * 2 + 1
    questions = mixed_questions(loaded, seed=5, count=8)
    with Engine(loaded, memory_bytes=2**22) as engine:
        assert engine._runner.fallback_reason is None
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
    audit(engine)
    assert said == [generate(loaded, asked) for asked in questions]


def test_a_quantized_model_runs_without_the_library_too(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_quantized("llama", 4)
    questions = mixed_questions(loaded, seed=6, count=4)
    expected = [generate(loaded, asked) for asked in questions]
    monkeypatch.setattr(library, "load", lambda: None)
    monkeypatch.setattr(library, "status", lambda: "not here")
    with Engine(loaded, memory_bytes=2**22) as engine:
        assert engine._runner.fallback_reason == "not here"
        assert [tokens(engine.submit(asked)) for asked in questions] == expected


@pytest.mark.parametrize("bits", quantization.BITS)
def test_prompts_in_integers_of_8_bits_give_nearly_the_same_logits(native: Any, bits: int) -> None:
    loaded = load_quantized("llama", bits)
    asked = max(mixed_questions(loaded, seed=7, count=12), key=lambda each: each.prompt.num_positions)
    assert asked.prompt.num_positions > native_layers.MAX_DECODE_POSITIONS
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


def test_integers_that_are_asked_for_and_not_used_are_reported(native: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quantized = load(words_and_letters("the cat"), "llama", **WIDE), load_quantized("llama", 8)

    def report(loaded: Any, arithmetic: str = "int8") -> list[str]:
        with Engine(loaded, memory_bytes=2**22, arithmetic=arithmetic) as engine:
            return [sentence for sentence in engine.fallbacks if "slower" not in sentence]

    assert report(quantized) == report(plain, "exact") == []
    (sentence,) = report(plain)
    assert sentence.startswith("Prompts are computed exactly, since arithmetic 'int8' needs a model with quantized")
    monkeypatch.setattr(library, "load", lambda: None)
    (sentence,) = report(quantized)
    assert "needs the native library, which needs a CPU" in sentence


def test_a_quantized_layer_keeps_its_scales_when_the_model_changes_its_dtype() -> None:
    layer = QuantizedLinear(quantization.quantize(draw(32, 64), 8), torch.zeros(32))
    before = quantization.dequantize(layer.quantized)
    layer = layer.to(torch.bfloat16)
    assert layer.bias is not None
    assert layer.bias.dtype == torch.bfloat16
    assert layer.scales.dtype == torch.float32
    torch.testing.assert_close(quantization.dequantize(layer.quantized), before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu", "gelu_pytorch_tanh"])
def test_a_tower_through_the_native_layers_gives_what_torch_gives(
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
    assert fallback.find_tower_fallback_reason(tower) is None
    pixels = torch.randn(3, 3, tower.image_size, tower.image_size).to(dtype)
    with torch.inference_mode():
        expected, out = tower(pixels), native_layers.TowerLayers(tower, calls.ScratchBuffers()).run(pixels)
    assert out.dtype == dtype
    limit = 1e-4 if dtype == torch.float32 else 4e-2
    assert (out - expected).norm() / expected.norm() < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 2, 3, 6], ids=lambda heads: f"heads of {48 // heads}")
def test_a_siglip_tower_with_heads_of_any_size_gives_what_torch_gives(
    native: Any, heads: int, dtype: torch.dtype
) -> None:
    sizes = {"hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": heads}
    config = {"model_type": "siglip_vision_model", **sizes, "image_size": 30, "patch_size": 7}
    tower = SigLipVisionTower.from_config(config, SimpleNamespace(mm_vision_select_layer=-2)).eval().to(dtype)
    torch.manual_seed(4)
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    assert fallback.find_tower_fallback_reason(tower) is None
    layers = native_layers.TowerLayers(tower, calls.ScratchBuffers())
    for num_tiles in (3, 1):
        pixels = torch.randn(num_tiles, 3, 30, 30).to(dtype)
        with torch.inference_mode():
            expected, out = tower(pixels), layers.run(pixels)
        assert out.shape == (num_tiles, 16, 48)
        limit = 1e-4 if dtype == torch.float32 else 4e-2
        assert (out - expected).norm() / expected.norm() < limit


def test_widening_a_projector_leaves_the_models_weights_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """``submit`` reads the model's weights in the caller's thread while an image is encoded."""
    monkeypatch.setattr(native_layers, "cpu_is_faster_in_bfloat16", lambda: False)
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


@pytest.mark.parametrize("way", ["dtype", "norm", "quantized", "hook"])
def test_a_layer_that_research_code_changed_runs_through_its_own_modules(native: Any, way: str) -> None:
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
        elif way == "quantized":
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                quantize_linear(layer.self_attn, name, getattr(layer.self_attn, name).weight, 8)
            for name in ("gate_proj", "up_proj", "down_proj"):
                quantize_linear(layer.mlp, name, getattr(layer.mlp, name).weight, 8)
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
def test_a_tower_with_hooks_or_replaced_parts_is_run_by_torch(
    part: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = make_model("llama").get_vision_tower()
    assert fallback.find_tower_fallback_reason(tower) is None
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
    assert fallback.find_tower_fallback_reason(tower) is not None
