"""Which implementation of the kernels runs on a device."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import torch

from llava.engine.gpu import reference


def choose_kernels(device: torch.device) -> ModuleType:
    """The module ``triton_kernels`` on NVIDIA GPUs with Triton, else ``reference``: the same functions."""
    if device.type != "cuda" or torch.version.hip is not None or importlib.util.find_spec("triton") is None:
        return reference
    from llava.engine.gpu import triton_kernels

    return triton_kernels
