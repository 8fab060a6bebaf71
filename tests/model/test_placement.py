"""Where a model goes and in what precision, and how its matrices are made smaller."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llava.errors import UsageError
from llava.model import builder, checkpoint
from llava.model.bnb_quantization import check_quantization, quantize_layer, quantize_model
from llava.model.device_map import find_device_map, find_unsplit, plan_devices
from llava.model.placement import (
    check_flash_attention,
    choose_device,
    choose_dtype,
    cpu_has_bfloat16,
    cpu_is_faster_in_bfloat16,
    read_dtype,
)
from tests.model.test_adapters import write_original
from tests.tiny import make_model
from tests.tiny_checkpoints import write_llava_1_6

CPU = torch.device("cpu")


def test_the_best_device_there_is_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_cuda, has_mps, expected in ((True, True, "cuda:0"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has_cuda: has)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda has=has_mps: has)
        assert str(choose_device(None)) == str(choose_device("auto")) == expected


def test_a_gpu_may_be_named_by_its_number_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert [str(choose_device(name)) for name in ("cuda", "cuda:1", 1)] == ["cuda:0", "cuda:1", "cuda:1"]
    with pytest.raises(UsageError, match="sees 2 CUDA devices"):
        choose_device("cuda:2")


@pytest.mark.parametrize(("rank", "current", "expected"), [("1", 0, 1), ("3", 0, 0), ("", 1, 1), ("x", 1, 1)])
def test_each_process_of_a_launcher_has_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, rank: str, current: int, expected: int
) -> None:
    """LOCAL_RANK counts only where so many GPUs are seen: a launcher may show each process one alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert [str(choose_device(name)) for name in (None, "auto", "cuda")] == [f"cuda:{expected}"] * 3
    assert str(choose_device("cuda:0")) == "cuda:0"


def test_flash_attention_is_refused_where_it_cannot_compute() -> None:
    gpu = torch.device("cuda", 0)
    for dtype in (torch.float16, torch.bfloat16):
        check_flash_attention(gpu, dtype)
    with pytest.raises(UsageError, match=r"in float16 and bfloat16, but the dtype is float32: .*--dtype bfloat16"):
        check_flash_attention(gpu, torch.float32)
    with pytest.raises(UsageError, match="needs a GPU, but the device is cpu"):
        check_flash_attention(CPU, torch.float16)


@pytest.mark.parametrize("name", ["gpu", "tpu", "cpu:x", "cuda:-1", "meta", ""])
def test_a_device_that_does_not_exist_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}'"):
        choose_device(name)


def test_precisions_have_names() -> None:
    assert read_dtype("bf16") is read_dtype("torch.bfloat16") is read_dtype(torch.bfloat16) is torch.bfloat16
    assert read_dtype("half") is torch.float16
    assert read_dtype("auto") is read_dtype(None) is None
    for name in ("int8", torch.int8, "float64", 16):
        with pytest.raises(UsageError, match="There is no dtype"):
            read_dtype(name)  # type: ignore[arg-type]


def test_on_a_cpu_a_model_is_bfloat16_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    small, medium, large = 29_999_999, 30_000_000, 100_000_000
    for has_bfloat16, has_library, for_engine, least in (
        (True, True, True, medium),
        (True, True, False, medium),
        (True, False, False, medium),
        (False, True, True, large),
        (False, False, True, None),
        (False, True, False, None),
    ):
        monkeypatch.setattr("llava.model.placement.cpu_has_bfloat16", lambda has=has_bfloat16: has)
        monkeypatch.setattr("llava.native.library.load", lambda has=has_library: object() if has else None)
        for num_parameters in (small, medium, large - 1, large, 7 * 10**9):
            expected = torch.bfloat16 if least is not None and num_parameters >= least else torch.float32
            for stored in ("float16", "bfloat16", "float32", None):
                assert choose_dtype(CPU, stored, num_parameters, for_engine) is expected


@pytest.mark.parametrize(
    ("words", "has", "is_faster"),
    [
        ("vendor_id : GenuineIntel flags : avx2 avx512f", False, False),
        ("vendor_id : GenuineIntel flags : avx512f avx512_bf16", True, False),
        ("vendor_id : GenuineIntel flags : avx512f avx512_bf16 amx_bf16", True, True),
        ("vendor_id : AuthenticAMD flags : avx512f avx512_bf16", True, True),
        ("vendor_id : AuthenticAMD flags : avx2", False, False),
        ("Features : asimd bf16 i8mm", True, True),
        ("", False, False),
    ],
)
def test_a_cpu_may_have_bfloat16_and_be_no_faster_in_it(
    words: str, has: bool, is_faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava.model.placement._read_cpu_words", lambda: frozenset(words.split()))
    assert cpu_has_bfloat16() is has
    assert cpu_is_faster_in_bfloat16() is is_faster


def test_on_a_gpu_the_files_precision_is_kept_where_it_has_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    for has_bfloat16, stored, expected in (
        (True, "float16", torch.float16),
        (True, "bfloat16", torch.bfloat16),
        (True, "float32", torch.bfloat16),
        (True, None, torch.bfloat16),
        (False, "bfloat16", torch.float16),
    ):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bfloat16: has)
        assert choose_dtype(gpu, stored, 7 * 10**9) is expected


def test_fewer_bits_need_a_library_only_under_an_adapter_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (16, 8, 4):
        check_quantization(bits, CPU)
        check_quantization(bits, torch.device("cuda", 0))
    with pytest.raises(UsageError, match="CPUs and NVIDIA GPUs, but the device is mps"):
        check_quantization(4, torch.device("mps"))
    with pytest.raises(UsageError, match="merge it"):
        check_quantization(4, CPU, is_apart=True)
    with pytest.raises(UsageError, match="not in 5"):
        check_quantization(5, CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install bitsandbytes"):
        check_quantization(8, torch.device("cuda", 0), is_apart=True)


class QuantizedParameter(nn.Parameter):
    """Stands for Int8Params and Params4bit: keeps what it was made with."""

    def __new__(cls, data: torch.Tensor, requires_grad: bool, **options: Any) -> QuantizedParameter:
        made = super().__new__(cls, data, requires_grad)
        made.options = options
        return made

    def to(self, *args: Any, **kwargs: Any) -> QuantizedParameter:
        return self


class QuantizedLinear(nn.Linear):
    def __init__(self, columns: int, rows: int, bias: bool, **options: Any) -> None:
        super().__init__(columns, rows, bias)
        self.options = options


def pretend_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("bitsandbytes")
    library.nn = SimpleNamespace(  # type: ignore[attr-defined]
        Linear8bitLt=QuantizedLinear,
        Linear4bit=QuantizedLinear,
        Int8Params=QuantizedParameter,
        Params4bit=QuantizedParameter,
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", library)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("order", [("weight", "bias"), ("bias", "weight")])
def test_a_layer_is_replaced_once_and_gets_both_its_parts(
    monkeypatch: pytest.MonkeyPatch, bits: int, order: tuple[str, str]
) -> None:
    pretend_bitsandbytes(monkeypatch)
    values = {"weight": torch.randn(3, 2).half(), "bias": torch.randn(3).half()}
    with torch.device("meta"):
        model = nn.Sequential(nn.Sequential(nn.Linear(2, 3)))
    for leaf in order:
        quantize_layer(model, "0.0", leaf, values[leaf], bits, CPU)
    layer: Any = model[0][0]
    assert isinstance(layer, QuantizedLinear)
    assert isinstance(layer.weight, QuantizedParameter)
    assert torch.equal(layer.weight, values["weight"])
    assert torch.equal(layer.bias, values["bias"])
    assert not layer.weight.requires_grad
    if bits == 4:
        assert layer.weight.options == {"compress_statistics": True, "quant_type": "nf4"}
        assert layer.options["compute_dtype"] == torch.float16
    else:
        assert layer.weight.options == {"has_fp16_weights": False}
        assert layer.options == {"has_fp16_weights": False, "threshold": 6.0}


@pytest.mark.parametrize("bits", [8, 4])
def test_a_model_that_is_there_whole_is_quantized_in_its_decoders_blocks_alone(
    monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    pretend_bitsandbytes(monkeypatch)
    model = make_model("qwen2")
    whole = {name: value.clone() for name, value in model.state_dict().items()}
    quantize_model(model, bits, CPU)
    kinds = {name: type(module) for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    quantized = {name for name, kind in kinds.items() if kind is QuantizedLinear}
    assert quantized == {name for name in kinds if name.startswith("model.layers.")}
    assert "model.layers.0.self_attn.q_proj" in quantized
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("merge", [True, False])
def test_on_a_gpu_an_adapter_is_merged_before_anything_is_quantized(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, merge: bool
) -> None:
    """The order of steps, with no GPU: what would go there stays on the CPU, and says that it went."""
    steps: list[str] = []
    gpu = torch.device("cuda", 0)
    write_original(tmp_path)
    monkeypatch.setattr(checkpoint, "choose_device", lambda name: gpu)
    monkeypatch.setattr(checkpoint, "check_quantization", lambda *arguments, **settings: None)
    fill = checkpoint._fill

    def fill_here(opened: Any, device: torch.device, dtype: torch.dtype, bits: int, uses_bnb: bool) -> None:
        steps.append(f"fill {device} {bits}{' by bitsandbytes' * uses_bnb}")
        fill(opened, CPU, dtype, 16)

    def apply(model: Any, adapter: Any, merges: bool) -> None:
        steps.append(f"apply {merges} {getattr(model, 'is_loaded_in_4bit', False)}")

    monkeypatch.setattr(checkpoint, "_fill", fill_here)
    monkeypatch.setattr(checkpoint.adapters, "apply_adapter", apply)
    monkeypatch.setattr(checkpoint, "quantize_linears", lambda model, bits, device: steps.append(f"to {device} {bits}"))
    checkpoint.load_model(tmp_path / "lora", merge=merge, bits=4, dtype="float16")
    if merge:
        assert steps == ["fill cpu 16", "apply True False", "to cuda:0 4"]
    else:
        assert steps == ["fill cuda:0 4 by bitsandbytes", "apply False True"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "auto"),
        ({"device": "auto"}, "auto"),
        ({"device": "cuda:1"}, None),
        ({"bits": 4}, None),
        ({"device_map": "sequential"}, "sequential"),
        ({"rank": "1"}, None),
    ],
)
def test_a_model_goes_to_several_gpus_only_where_nobody_chose_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, Any], expected: str | None
) -> None:
    write_llava_1_6(tmp_path)
    asked: list[Any] = []

    def find(model: Any, device_map: Any, dtype: torch.dtype, device: torch.device) -> None:
        asked.append(device_map)

    monkeypatch.setattr(checkpoint, "choose_device", lambda name: CPU)
    monkeypatch.setattr(checkpoint, "find_device_map", find)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if (rank := settings.pop("rank", None)) is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    checkpoint.load_model(tmp_path, **settings)
    assert asked == [expected]


def test_the_front_door_gives_float16_on_a_gpu_and_load_model_what_suits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def load(path: Any, **settings: Any) -> Any:
        asked.append(settings["dtype"])
        raise UsageError("far enough")

    monkeypatch.setattr(builder, "load_model", load)
    for device, keywords, expected in (
        ("cuda:0", {}, "float16"),
        ("cuda:0", {"load_4bit": True}, "float16"),
        ("cuda:0", {"torch_dtype": "bfloat16"}, "bfloat16"),
        ("cpu", {}, None),
    ):
        monkeypatch.setattr(builder, "choose_device", lambda name, device=device: torch.device(device))
        with pytest.raises(UsageError, match="far enough"):
            builder.load_pretrained_model("x", None, "llava", **keywords)
        assert asked.pop() == expected


def test_parts_on_the_disk_and_in_memory_answer_as_one_model(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "model")
    _, whole, _, _ = builder.load_pretrained_model(tmp_path / "model", None, "llava", device="cpu")
    device_map = {
        "model.embed_tokens": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "model.vision_tower": "disk",
        "model.mm_projector": "disk",
        "model.image_newline": "cpu",
        "lm_head": "disk",
    }
    settings = {"device_map": device_map, "offload_folder": tmp_path / "offload"}
    _, model, _, _ = builder.load_pretrained_model(tmp_path / "model", None, "llava", **settings)
    assert model.get_vision_tower().vision_tower.device.type == "meta"
    given: dict[str, Any] = {"images": [torch.randn(3, 3, 28, 28)], "image_sizes": [(28, 56)]}
    ids = torch.tensor([[1, -200, 9]])
    torch.testing.assert_close(model(input_ids=ids, **given).logits, whole(input_ids=ids, **given).logits)
    greedy: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(ids, **given, **greedy), whole.generate(ids, **given, **greedy))
    with pytest.raises(UsageError, match="offload_folder does not say where"):
        builder.load_pretrained_model(tmp_path / "model", None, "llava", device_map=device_map)
    for broken, said in (
        ({"model.layers": 0, "lm_head": 1}, "does not cover the whole"),
        ({"": "gpu", "x": "cpu"}, "'gpu'"),
    ):
        with pytest.raises(UsageError, match=said):
            find_device_map(model, broken, torch.float32, CPU)


def test_a_plan_for_small_devices_tears_no_block_apart(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = make_model("llama")
    size = sum(parameter.numel() for parameter in model.parameters()) * 2
    planned = plan_devices(model, torch.float16, {0: size // 2, 1: size // 2, "cpu": size})
    assert {0, 1} <= set(planned.values())
    blocks = [name for name in planned if "layers." in name]
    assert all(name.rpartition("layers.")[2].isdecimal() for name in blocks)
    assert planned["model.image_newline"] == 0
    assert {"CLIPEncoderLayer", "LlamaDecoderLayer", "SiglipEncoderLayer"} <= set(find_unsplit(model))


def test_two_models_in_one_offload_folder_keep_their_own_weights_and_leave_nothing(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "first")
    write_llava_1_6(tmp_path / "second")
    tensors = load_file(tmp_path / "second" / "model.safetensors")
    tensors["model.norm.weight"] *= -1
    save_file(tensors, tmp_path / "second" / "model.safetensors", {"format": "pt"})
    ids, room = torch.tensor([[1, 5, 7]]), tmp_path / "room"
    expected, models = [], []
    for name in ("first", "second"):
        whole = checkpoint.load_model(tmp_path / name, device="cpu").model
        expected.append(whole(input_ids=ids).logits)
        models.append(builder.load_pretrained_model(tmp_path / name, device_map={"": "disk"}, offload_folder=room)[1])
    for model, logits in zip(models, expected, strict=True):
        assert torch.equal(model(input_ids=ids).logits, logits)
    assert not torch.equal(*expected)
    assert len(list(room.iterdir())) == 2
    del model, models
    gc.collect()
    assert not list(room.iterdir())


def test_an_offload_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "model")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"offload_folder '.*file' cannot be written"):
        builder.load_pretrained_model(tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "file")
