"""Chooses a model's device and dtype, from the caller's wishes, the machine and the stored dtype."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

from llava.errors import UsageError
from llava.native import library

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
# From so many parameters on, a CPU's own bfloat16 instructions are worth the rounding: XS of benchmarks/engine.py, with
# 70 million, is twice as fast. A smaller model is quick in float32, and exact.
BFLOAT16_PARAMETERS = 30_000_000
# From so many on, half as many bytes to read are, too, where bfloat16 is widened before it is multiplied: a decoder of
# 135 million answers twice as fast, and its likeliest tokens are the same in 99 of 100.
WIDENED_PARAMETERS = 100_000_000


def choose_device(name: str | torch.device | int | None = None) -> torch.device:
    """The device of that name, or with None or "auto" the best available one: cuda, mps, cpu. Raises UsageError.

    "cuda" without an index is this process's own GPU: that of LOCAL_RANK, which torchrun and accelerate set, else
    torch's current one.
    """
    if name is None or name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", _find_own_gpu())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device("cuda", name) if isinstance(name, int) else torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"There is no device '{name}'; use cuda, cuda:1, mps, cpu, or none for the best.") from error
    if device.type == "cuda":
        num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = _find_own_gpu() if device.index is None and num_devices else device.index or 0
        if index >= num_devices:
            found = f"torch {torch.__version__} sees {num_devices} CUDA devices on this machine"
            raise UsageError(f"The device '{name}' is not there: {found}. Use --device cpu, or leave it out.")
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("The device 'mps' is not there: it needs a Mac with Apple silicon. Leave --device out.")
    if device.type not in ("cpu", "mps"):
        raise UsageError(f"The device '{name}' is not supported; use cuda, mps or cpu, or leave it out.")
    return device


def _find_own_gpu() -> int:
    rank = os.environ.get("LOCAL_RANK", "")
    # A launcher may also make a single GPU visible to each process, which is number 0 for every rank.
    if rank.isdecimal() and int(rank) < torch.cuda.device_count():
        return int(rank)
    return torch.cuda.current_device()


def read_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """The floating-point dtype of that name; None for None and "auto". Raises UsageError."""
    if name is None or name == "auto":
        return None
    dtype = _DTYPES.get(str(name).removeprefix("torch."))
    if dtype is None:
        raise UsageError(f"There is no dtype '{name}'; use float32, bfloat16 or float16, or leave it out.")
    return dtype


def choose_dtype(
    device: torch.device, stored: str | None, num_parameters: int, for_engine: bool = False
) -> torch.dtype:
    """The dtype that suits the device, for weights that are stored as ``stored``.

    On a GPU it has 16 bits: the stored dtype, or bfloat16 for float32 files (its range is the same), or float16 if the
    device has no bfloat16. On a CPU with instructions for bfloat16 it is that for all but small models, else float32:
    without them torch is many times slower. ``for_engine``: the compiled engine widens bfloat16 as it reads it, so it
    takes bfloat16 for a large model on any CPU.
    """
    if device.type == "cpu":
        if cpu_has_bfloat16():
            is_quick = num_parameters >= BFLOAT16_PARAMETERS
        else:
            is_quick = for_engine and num_parameters >= WIDENED_PARAMETERS and library.load() is not None
        return torch.bfloat16 if is_quick else torch.float32
    if device.type == "mps" or stored == "float16" or not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def check_flash_attention(device: torch.device, dtype: torch.dtype) -> None:
    """Raises UsageError if FlashAttention cannot run there; it would fail itself only when the model first runs."""
    if device.type != "cuda":
        raise UsageError(
            f"FlashAttention needs a GPU, but the device is {device}: leave the attention out, or use sdpa."
        )
    if dtype not in (torch.float16, torch.bfloat16):
        raise UsageError(
            f"FlashAttention computes in float16 and bfloat16, but the dtype is {str(dtype).removeprefix('torch.')}: "
            "load the model in one of these (--dtype bfloat16), or use the attention sdpa."
        )


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX, ARM's bf16); unknown counts as no."""
    return bool(_read_cpu_words() & {"avx512_bf16", "amx_bf16", "bf16"})


def cpu_is_faster_in_bfloat16() -> bool:
    """Whether this CPU multiplies large bfloat16 matrices faster than float32 ones; unknown counts as no.

    AMX, ARM's bf16 and AMD's AVX512-BF16 do. Intel's AVX512-BF16 alone, as virtual machines show it that hide AMX, has
    a float32 unit more: two cores made 164 GFLOP/s in bfloat16 and 310 in float32 (torch 2.13).
    """
    words = _read_cpu_words()
    return bool(words & {"amx_bf16", "bf16"}) or {"avx512_bf16", "AuthenticAMD"} <= words


@cache
def _read_cpu_words() -> frozenset[str]:
    """The words of Linux's description of the CPU: its flags and its vendor among them; none elsewhere."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return frozenset()
