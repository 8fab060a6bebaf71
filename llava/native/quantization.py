"""Quantized matrices of 8 or 4 bits.

    8 bits   weight = scale[row] * q, q from -127 to 127: a scale (float32) for each row
    4 bits   weight = scale[row][column / 32] * q, q from -8 to 7: a scale (bfloat16) for 32 neighbours in a row, the
             candidate with the least squared error

quantized.h describes their layout in memory. Without the native library, torch computes the same.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from llava.native import library
from llava.native.abi import Matrix
from llava.native.calls import DTYPES, LANES, allocate, call, pointer

GROUP = 32
BITS = (8, 4)
# Candidate scales of a group of 32, in this order and with both signs: each maps its largest number to one of these.
_STEPS = (8, 7, 7.5, 6.5, 8.5, 6)


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix [rows, columns]: uint8 ``data`` and ``scales``, padded to whole strips of 16 rows and 32 columns."""

    bits: int
    rows: int
    columns: int
    data: torch.Tensor
    scales: torch.Tensor

    @property
    def num_bytes(self) -> int:
        """The bytes of data and scales, padding included."""
        return self.data.numel() + self.scales.numel() * self.scales.itemsize

    def matrix(self) -> Matrix:
        """The matrix as the library's structure; it points to this object's tensors."""
        return Matrix(self.bits, self.rows, self.columns, self.data.data_ptr(), self.scales.data_ptr())


def empty(rows: int, columns: int, bits: int, device: torch.device | str = "cpu") -> QuantizedMatrix:
    """An uninitialized quantized matrix."""
    strips, width = -(-rows // LANES), -(-columns // GROUP) * GROUP
    shape = (strips, width * LANES * bits // 8)
    if torch.device(device).type == "cpu":
        data = allocate(*shape, dtype=torch.uint8)
    else:
        data = torch.empty(shape, dtype=torch.uint8, device=device)
    if bits == 8:
        scales = torch.empty(strips, LANES, dtype=torch.float32, device=device)
    else:
        scales = torch.empty(strips, width // GROUP, LANES, dtype=torch.bfloat16, device=device)
    return QuantizedMatrix(bits, rows, columns, data, scales)


def quantize(weight: torch.Tensor, bits: int) -> QuantizedMatrix:
    """A float32 or bfloat16 matrix [rows, columns] in 8 or 4 bits."""
    assert bits in BITS
    weight = weight.detach().contiguous()
    if weight.dtype not in DTYPES:
        weight = weight.float()
    quantized = empty(weight.shape[0], weight.shape[1], bits, weight.device)
    if weight.device.type != "cpu" or library.load() is None:
        return _quantize_in_torch(weight, quantized)
    tensors = (weight, quantized.data, quantized.scales)
    call("llava_quantize", DTYPES[weight.dtype], bits, *weight.shape, *map(pointer, tensors), torch.get_num_threads())
    return quantized


def dequantize(
    quantized: QuantizedMatrix, dtype: torch.dtype = torch.float32, out: torch.Tensor | None = None
) -> torch.Tensor:
    """The matrix [rows, columns] that ``quantized`` represents, rounded to ``dtype``, which is that of ``out``."""
    if quantized.data.device.type != "cpu" or dtype not in DTYPES or library.load() is None:
        whole = _dequantize_in_torch(quantized).to(dtype)
        return whole if out is None else out.copy_(whole)
    if out is None:
        out = torch.empty(quantized.rows, quantized.columns, dtype=dtype)
    matrix = ctypes.byref(quantized.matrix())
    call("llava_dequantize", DTYPES[dtype], matrix, pointer(out), torch.get_num_threads())
    return out


def _quantize_in_torch(weight: torch.Tensor, quantized: QuantizedMatrix) -> QuantizedMatrix:
    rows, columns = weight.shape
    strips, width = len(quantized.data), -(-columns // GROUP) * GROUP
    whole = torch.nn.functional.pad(weight.float(), (0, width - columns, 0, strips * LANES - rows))
    if quantized.bits == 8:
        largest = whole.abs().amax(1)
        inverse = torch.where(largest > 0, 127 / largest, 0)
        numbers = (whole * inverse[:, None]).round() + 128
        quantized.scales.copy_((largest / 127).view(strips, LANES))
        # [strip, lane, in / 4, 4] -> [strip, in / 4, lane, 4]
        fours = numbers.to(torch.uint8).view(strips, LANES, width // 4, 4)
        quantized.data.copy_(fours.transpose(1, 2).reshape(quantized.data.shape))
        return quantized
    groups = whole.view(strips * LANES, width // GROUP, GROUP)
    scales = _choose_scales(groups)
    inverse = torch.where(scales != 0, 1 / scales, 0)
    numbers = ((groups * inverse[..., None]).round().clamp(-8, 7) + 8).to(torch.uint8)
    quantized.scales.copy_(scales.view(strips, LANES, -1).transpose(1, 2))
    eights = numbers.view(strips, LANES, width // 8, 2, 4)
    halves = eights[:, :, :, 0] | (eights[:, :, :, 1] << 4)
    quantized.data.copy_(halves.transpose(1, 2).reshape(quantized.data.shape))
    return quantized


def _choose_scales(groups: torch.Tensor) -> torch.Tensor:
    """The scales [rows, groups] of groups [rows, groups, 32]: bfloat16 numbers as float32."""
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))[..., 0]
    best, least = torch.zeros_like(largest), torch.full_like(largest, torch.inf)
    for step in _STEPS:
        for sign in (-1.0, 1.0):
            scale = (sign * largest / step).bfloat16().float()
            inverse = torch.where(scale != 0, 1 / scale, 0)
            numbers = (groups * inverse[..., None]).round().clamp(-8, 7)
            error = (groups - numbers * scale[..., None]).square().sum(-1)
            is_better = error < least
            best, least = torch.where(is_better, scale, best), torch.where(is_better, error, least)
    return best


def _dequantize_in_torch(quantized: QuantizedMatrix) -> torch.Tensor:
    strips, width = len(quantized.data), -(-quantized.columns // GROUP) * GROUP
    if quantized.bits == 8:
        fours = quantized.data.view(strips, width // 4, LANES, 4).transpose(1, 2)
        whole = (fours.reshape(strips * LANES, width).float() - 128) * quantized.scales.view(-1, 1)
    else:
        eights = quantized.data.view(strips, width // 8, LANES, 4).transpose(1, 2)
        numbers = torch.stack([eights & 15, eights >> 4], 3).reshape(strips * LANES, width // GROUP, GROUP).float() - 8
        scales = quantized.scales.float().transpose(1, 2).reshape(strips * LANES, width // GROUP, 1)
        whole = (numbers * scales).flatten(1)
    return whole[: quantized.rows, : quantized.columns].contiguous()
