"""Matrices in 8 or 4 bits.

    8 bits   weight = scale[row] * q, q from -127 to 127: a scale (float32) for each row
    4 bits   weight = scale[row][column / 32] * q, q from -8 to 7: a scale (bfloat16) for 32 neighbours in a row, of a
             few tried the one that leaves the least squared error

They lie in memory as matrix.h describes. Everything here is also there in torch alone, for machines without the
compiled library; both ways give the same.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from llava.native import library
from llava.native.calls import KINDS, LANES, Matrix, make_memory, pointer

GROUP = 32
BITS = (8, 4)
# Tried in this order, each with both signs: what the largest number of a group of 32 becomes.
_STEPS = (8, 7, 7.5, 6.5, 8.5, 6)


@dataclass(frozen=True)
class Packed:
    """A matrix [rows, columns]: uint8 ``data`` and ``scales``, padded to whole strips of 16 rows and 32 columns."""

    bits: int
    rows: int
    columns: int
    data: torch.Tensor
    scales: torch.Tensor

    @property
    def num_bytes(self) -> int:
        return self.data.numel() + self.scales.numel() * self.scales.itemsize

    def matrix(self) -> Matrix:
        """As the library takes it."""
        return Matrix(self.bits, self.rows, self.columns, self.data.data_ptr(), self.scales.data_ptr())


def empty(rows: int, columns: int, bits: int, device: torch.device | str = "cpu") -> Packed:
    """Memory for a packed matrix."""
    strips, width = -(-rows // LANES), -(-columns // GROUP) * GROUP
    shape = (strips, width * LANES * bits // 8)
    if torch.device(device).type == "cpu":
        data = make_memory(*shape, dtype=torch.uint8)
    else:
        data = torch.empty(shape, dtype=torch.uint8, device=device)
    if bits == 8:
        scales = torch.empty(strips, LANES, dtype=torch.float32, device=device)
    else:
        scales = torch.empty(strips, width // GROUP, LANES, dtype=torch.bfloat16, device=device)
    return Packed(bits, rows, columns, data, scales)


def pack(weight: torch.Tensor, bits: int) -> Packed:
    """A float32 or bfloat16 matrix [rows, columns] in 8 or 4 bits."""
    assert bits in BITS
    weight = weight.detach().contiguous()
    if weight.dtype not in KINDS:
        weight = weight.float()
    packed = empty(weight.shape[0], weight.shape[1], bits, weight.device)
    native = library.load() if weight.device.type == "cpu" else None
    if native is None:
        return _pack_in_torch(weight, packed)
    native.llava_pack(
        KINDS[weight.dtype],
        bits,
        *weight.shape,
        pointer(weight),
        pointer(packed.data),
        pointer(packed.scales),
        torch.get_num_threads(),
    )
    return packed


def unpack(packed: Packed, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The matrix [rows, columns] that ``packed`` stands for, rounded to ``dtype``."""
    native = library.load() if packed.data.device.type == "cpu" and dtype in KINDS else None
    if native is None:
        return _unpack_in_torch(packed).to(dtype)
    out = torch.empty(packed.rows, packed.columns, dtype=dtype)
    native.llava_unpack(KINDS[dtype], ctypes.byref(packed.matrix()), pointer(out), torch.get_num_threads())
    return out


def _pack_in_torch(weight: torch.Tensor, packed: Packed) -> Packed:
    rows, columns = weight.shape
    strips, width = len(packed.data), -(-columns // GROUP) * GROUP
    whole = torch.nn.functional.pad(weight.float(), (0, width - columns, 0, strips * LANES - rows))
    if packed.bits == 8:
        largest = whole.abs().amax(1)
        inverse = torch.where(largest > 0, 127 / largest, 0)
        numbers = (whole * inverse[:, None]).round() + 128
        packed.scales.copy_((largest / 127).view(strips, LANES))
        # [strip, lane, quad, 4] -> [strip, quad, lane, 4]
        quads = numbers.to(torch.uint8).view(strips, LANES, width // 4, 4)
        packed.data.copy_(quads.transpose(1, 2).reshape(packed.data.shape))
        return packed
    groups = whole.view(strips * LANES, width // GROUP, GROUP)
    scales = _choose_scales(groups)
    inverse = torch.where(scales != 0, 1 / scales, 0)
    numbers = ((groups * inverse[..., None]).round().clamp(-8, 7) + 8).to(torch.uint8)
    packed.scales.copy_(scales.view(strips, LANES, -1).transpose(1, 2))
    eights = numbers.view(strips, LANES, width // 8, 2, 4)
    halves = eights[:, :, :, 0] | (eights[:, :, :, 1] << 4)
    packed.data.copy_(halves.transpose(1, 2).reshape(packed.data.shape))
    return packed


def _choose_scales(groups: torch.Tensor) -> torch.Tensor:
    """For groups [rows, groups, 32] their scales [rows, groups], float32 numbers that are bfloat16."""
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


def _unpack_in_torch(packed: Packed) -> torch.Tensor:
    strips, width = len(packed.data), -(-packed.columns // GROUP) * GROUP
    if packed.bits == 8:
        quads = packed.data.view(strips, width // 4, LANES, 4).transpose(1, 2)
        whole = (quads.reshape(strips * LANES, width).float() - 128) * packed.scales.view(-1, 1)
    else:
        eights = packed.data.view(strips, width // 8, LANES, 4).transpose(1, 2)
        numbers = torch.stack([eights & 15, eights >> 4], 3).reshape(strips * LANES, width // GROUP, GROUP).float() - 8
        scales = packed.scales.float().transpose(1, 2).reshape(strips * LANES, width // GROUP, 1)
        whole = (numbers * scales).flatten(1)
    return whole[: packed.rows, : packed.columns].contiguous()
