"""The functions of ``reference`` as Triton kernels: for tensors on the current NVIDIA GPU, or in Triton's interpreter.

Importing it imports Triton, which comes with every build of torch for CUDA.
"""

from __future__ import annotations

from llava.engine.gpu.decode_kernel import decode_attention
from llava.engine.gpu.elementwise_kernels import add_rms_norm, rotate_and_store, silu_multiply
from llava.engine.gpu.extend_kernel import extend_attention
from llava.engine.gpu.quantized_kernels import quantized_matmul

__all__ = [
    "add_rms_norm",
    "decode_attention",
    "extend_attention",
    "quantized_matmul",
    "rotate_and_store",
    "silu_multiply",
]
