"""Kernels for NVIDIA GPUs in Triton, and the same functions in torch, which they are tested against."""
