"""Where a model goes and in what precision, and how its matrices are made smaller."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llava.errors import UsageError
from llava.model.placement import choose_device, choose_dtype, read_dtype
from llava.model.quantize import check_quantization, quantize_layer

CPU = torch.device("cpu")


def test_the_best_device_there_is_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_cuda, has_mps, expected in ((True, True, "cuda:0"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has_cuda: has)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda has=has_mps: has)
        assert str(choose_device(None)) == str(choose_device("auto")) == expected


def test_a_gpu_may_be_named_by_its_number_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_device(name)) for name in ("cuda", "cuda:1", 1)] == ["cuda:0", "cuda:1", "cuda:1"]
    with pytest.raises(UsageError, match="sees 2 CUDA devices"):
        choose_device("cuda:2")


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


def test_on_a_cpu_only_a_large_model_on_fitting_hardware_is_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_bfloat16, num_parameters, expected in (
        (True, 7 * 10**9, torch.bfloat16),
        (True, 10**7, torch.float32),
        (False, 7 * 10**9, torch.float32),
    ):
        monkeypatch.setattr("llava.model.placement.cpu_has_bfloat16", lambda has=has_bfloat16: has)
        assert choose_dtype(CPU, "float16", num_parameters) is expected


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


def test_a_cpu_needs_nothing_for_fewer_bits_and_a_gpu_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for bits in (16, 8, 4):
        check_quantization(bits, CPU)
    with pytest.raises(UsageError, match="CPUs and NVIDIA GPUs, but the device is mps"):
        check_quantization(4, torch.device("mps"))
    with pytest.raises(UsageError, match="merge it"):
        check_quantization(4, CPU, is_apart=True)
    with pytest.raises(UsageError, match="not in 5"):
        check_quantization(5, CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install bitsandbytes"):
        check_quantization(8, torch.device("cuda", 0))


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


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("order", [("weight", "bias"), ("bias", "weight")])
def test_a_layer_is_replaced_once_and_gets_both_its_parts(
    monkeypatch: pytest.MonkeyPatch, bits: int, order: tuple[str, str]
) -> None:
    library = ModuleType("bitsandbytes")
    library.nn = SimpleNamespace(  # type: ignore[attr-defined]
        Linear8bitLt=QuantizedLinear,
        Linear4bit=QuantizedLinear,
        Int8Params=QuantizedParameter,
        Params4bit=QuantizedParameter,
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", library)
    values = {"weight": torch.randn(3, 2).half(), "bias": torch.randn(3).half()}
    with torch.device("meta"):
        model = nn.Sequential(nn.Sequential(nn.Linear(2, 3)))
    for leaf in order:
        quantize_layer(model, "0.0", leaf, values[leaf], bits)
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
