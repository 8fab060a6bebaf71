"""Repairs of Triton's interpreter, which runs the kernels on a CPU for tests and for ``check``.

Triton decides when it is first imported, and for the whole process, whether kernels are interpreted. Its interpreter
computes in NumPy and keeps bfloat16 as integers: it multiplies their bits and cuts float32 off instead of rounding.
With NumPy 2.4 it cannot loop up to a number that was loaded. And it wraps Triton's language once more in every call of
a function within a kernel, which makes kernels with loops several times slower.

Source: triton 3.7.1 runtime/interpreter.py (create_dot, cast_impl, _patch_lang and _patch_lang_tensor);
triton-lang/triton issue 11584.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np


def interpret_kernels() -> None:
    """Makes Triton interpret every kernel of this process, on the CPU; before Triton is first imported."""
    assert "triton" not in sys.modules, "Triton has been imported: it is too late to choose its interpreter"
    os.environ["TRITON_INTERPRET"] = "1"
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    multiply, cast = builder.create_dot, builder.cast_impl
    patch, patch_tensor = interpreter._patch_lang, interpreter._patch_lang_tensor
    patched: set[tuple[str, ...]] = set()

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        return multiply(self, *(widen(self, operand) for operand in (a, b)), *others)

    def widen(self: Any, operand: Any) -> Any:
        return cast_impl(self, operand, tl.float32) if operand.dtype.scalar == tl.bfloat16 else operand

    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        if (source.dtype.scalar, target.scalar) == (tl.float32, tl.bfloat16):
            return interpreter.TensorHandle(_round_to_bfloat16(source.data), tl.bfloat16)
        if (source.dtype.scalar, target.scalar) == (tl.bfloat16, tl.float32):
            return interpreter.TensorHandle((source.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
        return cast(self, source, target)

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def patch_lang(function: Any) -> Any:
        modules = tuple(value.__name__ for value in function.__globals__.values() if value in (tl, tl.core))
        if modules not in patched:
            patch(function)  # for good: nothing else runs in this process
            patched.add(modules)
        return interpreter._LangPatchScope()

    builder.create_dot, builder.cast_impl = create_dot, cast_impl
    interpreter._patch_lang, interpreter._patch_lang_tensor = patch_lang, patch_lang_tensor


def _round_to_bfloat16(numbers: Any) -> Any:
    """The bits of the nearest bfloat16, to even; NaN stays NaN."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, rounded).astype(np.uint16)
