"""Compiles the kernels for an H100, without a GPU, as their functions launch them; prints what came out, as JSON.

Triton brings its own assembler, so only the launch itself needs a GPU. Run by ``test_gpu_kernels``.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from llava.engine.gpu import triton_kernels
from llava.engine.gpu.workspace import DecodeWorkspace
from llava.native import quantization

CPU, HALF = torch.device("cpu"), torch.bfloat16
compiled: dict[str, Any] = {}
compile_and_launch = JITFunction.run


class Target:
    """What Triton asks a driver for before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **others: Any) -> None:
    kernel = compile_and_launch(self, *arguments, grid=grid, warmup=True, **others)
    ptx = kernel.asm["ptx"]
    compiled[f"{case}{self.fn.__name__}"] = {
        "shared_bytes": kernel.metadata.shared,
        "wide_copies": ptx.count("cp.async.cg.shared.global"),
        "tensor_core_products": ptx.count("mma.sync") + ptx.count("wgmma.mma_async"),
        "float32_products": ptx.count("fma.rn.f32"),
    }


def compile_attention(dtype: torch.dtype, num_heads: int, num_kv_heads: int, head_dim: int, window: int | None) -> None:
    keys, values = (torch.zeros(2, num_kv_heads, 16, head_dim, dtype=dtype) for _ in range(2))
    tables, lengths, starts = (torch.zeros(size, dtype=torch.int32) for size in ((1, 32), (1,), (2,)))
    queries = torch.zeros(128, num_heads, head_dim, dtype=dtype)
    given = (keys, values, tables)
    workspace = DecodeWorkspace(1, num_heads, num_kv_heads, head_dim, CPU)
    triton_kernels.decode_attention(queries[:1], *given, lengths, 0.1, window, workspace)
    triton_kernels.extend_attention(queries, *given, starts, lengths, 0.1, window)


def compile_the_rest() -> None:
    keys, values = (torch.zeros(2, 8, 16, 128, dtype=HALF) for _ in range(2))
    qkv, table = torch.zeros(1, 48 * 128, dtype=HALF), torch.zeros(4, 128, dtype=HALF)
    positions = torch.zeros(1, dtype=torch.int64)
    triton_kernels.rotate_and_store(qkv, table, table, positions, positions, keys, values)
    rows = torch.zeros(1, 4096, dtype=HALF)
    triton_kernels.add_rms_norm(rows, rows.clone(), rows[0], 1e-5)
    triton_kernels.silu_multiply(torch.zeros(1, 2 * 11008, dtype=HALF))


def compile_quantized(bits: int) -> None:
    matrix = quantization.empty(4096, 1024, bits)
    for num in (1, 32, 100):
        triton_kernels.quantized_matmul(torch.zeros(num, 1024, dtype=HALF), matrix, None)


driver.set_active(Target())
JITFunction.run = compile_only
case = ""
compile_attention(HALF, 32, 8, 128, 4096)
compile_the_rest()
case = "float32: "
compile_attention(torch.float32, 2, 1, 16, None)
for case_bits in (8, 4):
    case = f"{case_bits} bits: "
    compile_quantized(case_bits)
print(json.dumps(compiled))
