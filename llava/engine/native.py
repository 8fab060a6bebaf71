"""The compiled arithmetic of kernels.cpp: found or built, and called with tensors.

Where there is a C++ compiler the library is built once, for the very CPU it runs on, and kept; everywhere else, and
with ``LLAVA_NATIVE=0``, ``load`` gives None and the engine computes with torch alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fopenmp", "-Wno-psabi")
LANES = 16
MAX_DIM = 256
MAX_GROUP = 48
# More positions than this are computed faster by the matrix products of torch.
MAX_POSITIONS = 32
_KINDS = {torch.float32: 0, torch.bfloat16: 1}


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_rows", "num_heads", "num_kv_heads", "head_dim", "block_tokens")),
        *((name, ctypes.c_int32) for name in ("table_stride", "window", "num_threads")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("starts", "lengths", "tables")),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in (
            *("input_norm", "post_norm", "q", "k", "v", "o", "gate", "up", "down"),
            *("q_bias", "k_bias", "v_bias", "keys", "values"),
        )
    ]


class _Decoder(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_layers", "width", "inner", "num_heads", "num_kv_heads")),
        *((name, ctypes.c_int32) for name in ("head_dim", "block_tokens", "num_threads", "window")),
        *((name, ctypes.c_float) for name in ("eps", "scale")),
        ("layers", ctypes.c_void_p),
    ]


class _Positions(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num", "table_stride")),
        *((name, ctypes.c_void_p) for name in ("lengths", "tables", "slots", "cos", "sin", "hidden")),
    ]


@cache
def load() -> ctypes.CDLL | None:
    """The library, built first if need be; None where that cannot be. ``status`` says why."""
    try:
        library = _open(_build())
    except _Absent as reason:
        _status.append(str(reason))
        return None
    _status.append("compiled for this CPU")
    return library


def status() -> str:
    """One line: whether the compiled arithmetic is used, and if not, why."""
    load()
    return _status[-1]


_status: list[str] = []


class _Absent(Exception):
    """There is no library, for the reason that this says."""


def _build() -> Path:
    if os.environ.get("LLAVA_NATIVE") == "0":
        raise _Absent("LLAVA_NATIVE is 0")
    if sys.platform != "linux":
        raise _Absent(f"compiled arithmetic is for Linux, and this is {sys.platform}")
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), None)
    if compiler is None:
        raise _Absent("there is no C++ compiler (g++ or clang++)")
    path = _cache_folder() / f"kernels-{_fingerprint(compiler)}.so"
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            compiled, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
            _run([compiler, *FLAGS, "-march=native", "-c", str(SOURCE), "-o", str(compiled)])
            # Linked without OpenMP's own library: its functions are found in the one that torch brings, so that there
            # is one set of threads and not two that wait for each other on the same cores.
            _run([compiler, "-shared", str(compiled), "-o", str(linked)])
            linked.replace(path)  # whole or not at all, whoever else builds it at the same time
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", "") or ""
        raise _Absent(f"building it failed: {error} {output[-300:]}".strip()) from error
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llava"


def _fingerprint(compiler: str) -> str:
    """Names the source, the compiler and the CPU: a library of other ones is another file."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    parts = [SOURCE.read_text(encoding="utf-8"), " ".join(FLAGS), version, platform.machine()]
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        lines = cpu.read_text(encoding="utf-8").splitlines()
        parts += sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _open(path: Path) -> ctypes.CDLL:
    """The library, with the OpenMP that torch has loaded laid open to it."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").split()
    openmp = next((word for word in maps if word.startswith("/") and "omp" in Path(word).name), None)
    try:
        if openmp is not None:
            ctypes.CDLL(openmp, mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise _Absent(f"it cannot be loaded: {error}") from error


def find_obstacle(dtype: torch.dtype, device: torch.device, head_dim: int, group: int, block_tokens: int) -> str | None:
    """Why attention cannot be computed by the library; None if it can."""
    if device.type != "cpu":
        return f"the model is on {device}"
    if dtype not in _KINDS:
        return f"the dtype is {dtype}"
    if head_dim % LANES or head_dim > MAX_DIM or group > MAX_GROUP or block_tokens % LANES:
        return f"heads of {head_dim} in groups of {group} with blocks of {block_tokens} are not foreseen"
    return None if load() is not None else status()


def make_cache(
    num_blocks: int, num_kv_heads: int, block_tokens: int, head_dim: int, dtype: torch.dtype
) -> torch.Tensor:
    """Memory for keys or values, all zero without being touched: [blocks, kv heads, block_tokens * head_dim]."""
    import numpy as np

    shape = (num_blocks, num_kv_heads, block_tokens * head_dim)
    whole = np.zeros((num_blocks * num_kv_heads * block_tokens * head_dim * dtype.itemsize,), dtype=np.uint8)
    return torch.from_numpy(whole).view(dtype).view(shape)


def store(
    key_cache: torch.Tensor, value_cache: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    """Writes keys and values [N, kv heads, head_dim] into int64 slots [N] of caches from ``make_cache``."""
    library = load()
    assert library is not None
    num, num_kv_heads, head_dim = keys.shape
    keys, values = keys.contiguous(), values.contiguous()
    library.llava_store(
        _KINDS[keys.dtype],
        num,
        num_kv_heads,
        head_dim,
        key_cache.shape[2] // head_dim,
        _pointer(keys),
        _pointer(values),
        _pointer(slots),
        _pointer(key_cache),
        _pointer(value_cache),
        torch.get_num_threads(),
    )


def attend(
    queries: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    tables: torch.Tensor,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """Causal attention [N, heads, head_dim] of the last queries of every request over its own positions.

    ``starts`` int32 [R + 1]: where each request's queries begin. ``lengths`` int32 [R]: its positions so far.
    ``tables`` int32 [R, most]: its blocks. ``window``: how many positions up to its own a query sees.
    """
    library = load()
    assert library is not None
    _, num_heads, head_dim = queries.shape
    queries = queries.contiguous()
    out = torch.empty_like(queries)
    arguments = _Attention(
        len(lengths),
        num_heads,
        key_cache.shape[1],
        head_dim,
        key_cache.shape[2] // head_dim,
        tables.shape[1],
        window or 0,
        torch.get_num_threads(),
        scale,
        _pointer(starts),
        _pointer(lengths),
        _pointer(tables),
    )
    library.llava_attend(
        _KINDS[queries.dtype],
        ctypes.byref(arguments),
        _pointer(queries),
        _pointer(key_cache),
        _pointer(value_cache),
        _pointer(out),
    )
    return out


def linear(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Float32 [M, N] = rows [M, K] times weight [N, K], for few rows."""
    library = load()
    assert library is not None
    rows = rows.to(weight.dtype).contiguous()
    out = torch.empty(len(rows), len(weight))
    library.llava_linear(
        _KINDS[weight.dtype],
        len(rows),
        weight.shape[1],
        len(weight),
        _pointer(rows),
        _pointer(weight),
        _pointer(out),
        torch.get_num_threads(),
    )
    return out


class DecoderLayers:
    """All layers of a Llama, Mistral or Qwen2 decoder as one call, for up to MAX_POSITIONS positions.

    ``layers``: Transformers' decoder layers, whose weights are used where they are; ``caches``: (keys, values) of each.
    """

    def __init__(
        self, layers: Any, config: Any, caches: list[tuple[torch.Tensor, torch.Tensor]], window: int | None
    ) -> None:
        first = layers[0].self_attn
        self._kind = _KINDS[first.q_proj.weight.dtype]
        self._kept: list[torch.Tensor] = []
        structures = (_Layer * len(layers))()
        for structure, layer, (keys, values) in zip(structures, layers, caches, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            structure.input_norm = self._keep(layer.input_layernorm.weight.float())
            structure.post_norm = self._keep(layer.post_attention_layernorm.weight.float())
            for name in ("q", "k", "v", "o"):
                module = getattr(attention, f"{name}_proj")
                setattr(structure, name, self._keep(module.weight))
                if module.bias is not None:
                    setattr(structure, f"{name}_bias", self._keep(module.bias.float()))
            for name in ("gate", "up", "down"):
                setattr(structure, name, self._keep(getattr(mlp, f"{name}_proj").weight))
            structure.keys, structure.values = self._keep(keys), self._keep(values)
        self._structures = structures
        self._decoder = _Decoder(
            len(layers),
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            first.head_dim,
            caches[0][0].shape[2] // first.head_dim,
            1,
            window or 0,
            config.rms_norm_eps,
            first.scaling,
            ctypes.addressof(structures),
        )

    def _keep(self, tensor: torch.Tensor) -> int:
        tensor = tensor.detach()
        assert tensor.is_contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def run(
        self,
        hidden: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        slots: torch.Tensor,
        lengths: torch.Tensor,
        tables: torch.Tensor,
    ) -> torch.Tensor:
        """Float32 [M, C] behind the last layer, before the last norm, from embeddings [M, C].

        ``cos`` and ``sin`` float32 [M, head_dim], ``slots`` int64 [M], ``lengths`` int32 [M] (a position's place and
        one), ``tables`` int32 [M, most blocks]: one of each for every position.
        """
        library = load()
        assert library is not None
        hidden = hidden.float().contiguous().clone()
        self._decoder.num_threads = torch.get_num_threads()
        positions = _Positions(
            len(hidden),
            tables.shape[1],
            _pointer(lengths),
            _pointer(tables),
            _pointer(slots),
            _pointer(cos),
            _pointer(sin),
            _pointer(hidden),
        )
        library.llava_decode(self._kind, ctypes.byref(self._decoder), ctypes.byref(positions))
        return hidden


def find_layer_obstacle(layers: Any) -> str | None:
    """Why these decoder layers cannot run as one call; None if they can."""
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        modules = [getattr(attention, f"{name}_proj") for name in ("q", "k", "v", "o")]
        modules += [getattr(mlp, f"{name}_proj") for name in ("gate", "up", "down")]
        if any(type(module) is not torch.nn.Linear for module in modules):
            return "a matrix is quantized or has an adapter"
        if modules[3].bias is not None or any(module.bias is not None for module in modules[4:]):
            return "a matrix behind attention has a bias"
        if len({module.weight.dtype for module in modules}) > 1:
            return "the matrices are of different dtypes"
        if any(module.weight.device.type != "cpu" for module in modules):
            return "a matrix is not on the CPU"
        if getattr(mlp.act_fn, "__class__", None) not in (torch.nn.SiLU,) and "SiLU" not in type(mlp.act_fn).__name__:
            return f"the activation is {type(mlp.act_fn).__name__}"
        for module in (layer, attention, mlp, *modules):
            if module._forward_hooks or module._forward_pre_hooks:
                return "a module has a hook"
    return None


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
