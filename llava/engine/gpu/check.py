"""Checks the GPU kernels against torch and measures them: ``python -m llava.engine.gpu.check``.

On an NVIDIA GPU with the shapes of a decoder of 7 billion parameters: the error, the time, and the bytes or operations
per second. A call is measured within a CUDA graph that runs it for several layers, so that weights and blocks come from
memory, not from the L2 cache. Elsewhere with small shapes in Triton's interpreter, the error alone. The last line is
JSON; the exit code is 1 if a kernel failed or is further from torch than its dtype explains.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import torch

from llava.engine.gpu import reference
from llava.engine.gpu.interpreter import interpret_kernels
from llava.engine.gpu.workspace import DecodeWorkspace
from llava.native import quantization

# Largest difference from torch, as a share of the largest number: sums of bfloat16 in another order.
LIMIT = 2e-2


@dataclass(frozen=True)
class Shapes:
    """A decoder, and how long the prompts are."""

    hidden: int
    intermediate: int
    num_heads: int
    num_kv_heads: tuple[int, ...]
    head_dim: int
    length: int
    requests: tuple[int, ...]
    splits: tuple[int | None, ...]  # tried for one request; None is what a workspace chooses
    positions: tuple[int, ...]
    num_layers: int


FULL = Shapes(4096, 11008, 32, (32, 8), 128, 2208, (1, 8, 32), (None, 1, 4, 8, 16, 32, 64), (1, 32, 2208), 8)
TINY = Shapes(64, 96, 4, (4, 1), 16, 40, (1, 2), (2, 1), (1, 3), 1)


@dataclass
class Result:
    """One kernel at one size. ``bytes`` and ``operations`` are what it has to move and to compute, at least."""

    name: str
    difference: float | None = None
    microseconds: float | None = None
    gigabytes_per_second: float | None = None
    teraflops: float | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Case:
    """A call for each of several layers, what torch says to the first, and what a call costs at least."""

    name: str
    calls: list[Callable[[], torch.Tensor]]
    expected: Callable[[], torch.Tensor]
    num_bytes: int = 0
    num_operations: int = 0

    def run(self, device: torch.device) -> Result:
        """The difference, and on a GPU the times."""
        result = Result(self.name)
        expected = self.expected().float()
        out = self.calls[0]().float()
        result.difference = ((out - expected).abs().max() / expected.abs().max()).item()
        if device.type == "cuda":
            seconds = _measure(self.calls)
            result.microseconds = seconds * 1e6
            result.gigabytes_per_second = self.num_bytes / seconds / 1e9
            result.teraflops = self.num_operations / seconds / 1e12
        return result


def main() -> int:
    """Runs all cases and prints a table and one line of JSON. Returns the exit code."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and "triton" not in sys.modules:
        interpret_kernels()
    torch.manual_seed(0)
    results = []
    for make in (_attention_cases, _elementwise_cases, _product_cases):
        cases = make(TINY if device.type == "cpu" else FULL, device)
        while (case := next(cases, None)) is not None:
            try:
                result = case.run(device)
            except Exception as error:  # one kernel's failure hides no other's result
                result = Result(case.name, failure=f"{type(error).__name__}: {error}"[:500])
            results.append(result)
            print(_describe(result), flush=True)
    differences = [result.difference for result in results if result.difference is not None]
    is_right = len(differences) == len(results) and all(difference <= LIMIT for difference in differences)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "Triton's interpreter"
    facts = {"device": name, "difference": max(differences, default=None), "equal": is_right}
    print(json.dumps({**facts, "kernels": [asdict(result) for result in results]}))
    return 0 if is_right else 1


def _describe(result: Result) -> str:
    if result.failure is not None:
        return f"{result.name:58} FAILED: {result.failure}"
    line = f"{result.name:58} error {result.difference:.1e}"
    if result.microseconds is None:
        return line
    return (
        f"{line} {result.microseconds:9.1f} us {result.gigabytes_per_second:7.0f} GB/s {result.teraflops:6.1f} TFLOP/s"
    )


def _measure(calls: list[Callable[[], torch.Tensor]]) -> float:
    """Seconds for one of the calls: the median of a few runs of a CUDA graph of all of them."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    times = []
    for _ in range(7):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / len(calls))
    return statistics.median(times[2:])


def _attention_cases(shapes: Shapes, device: torch.device) -> Iterator[Case]:
    from llava.engine.gpu import triton_kernels

    num_heads, head_dim, length, dtype = shapes.num_heads, shapes.head_dim, shapes.length, torch.bfloat16
    blocks, scaling = -(-length // 16), head_dim**-0.5
    for num_kv_heads in shapes.num_kv_heads:
        heads = f"{num_heads}/{num_kv_heads} heads"
        for num_requests in shapes.requests:
            num_layers = min(shapes.num_layers, max(2, 2 * shapes.num_layers // num_requests))
            shape = (num_layers, 2, num_requests * blocks, num_kv_heads, 16, head_dim)
            caches = torch.randn(shape, dtype=dtype, device=device)
            tables = torch.randperm(num_requests * blocks).view(num_requests, blocks).to(device, torch.int32)
            lengths = torch.full((num_requests,), length, dtype=torch.int32, device=device)
            queries = torch.randn(num_requests, num_heads, head_dim, dtype=dtype, device=device)
            for splits in shapes.splits if num_requests == 1 else shapes.splits[:1]:
                workspace = DecodeWorkspace(num_requests, num_heads, num_kv_heads, head_dim, device, splits)
                chosen = f"{workspace.choose_splits(num_requests)} splits{' (chosen)' if splits is None else ''}"
                rest = (tables, lengths, scaling, None, workspace)
                yield Case(
                    f"decode, {num_requests} x {length}, {heads}, {chosen}",
                    [partial(triton_kernels.decode_attention, queries, cache[0], cache[1], *rest) for cache in caches],
                    partial(reference.decode_attention, queries, caches[0][0], caches[0][1], *rest),
                    caches[0].nbytes,
                )
        prompt = torch.randn(length, num_heads, head_dim, dtype=dtype, device=device)
        starts = torch.tensor([0, length], dtype=torch.int32, device=device)
        given = (tables[:1], starts, lengths[:1], scaling, None)
        yield Case(
            f"extend, a prompt of {length}, {heads}",
            [partial(triton_kernels.extend_attention, prompt, cache[0], cache[1], *given) for cache in caches],
            partial(reference.extend_attention, prompt, caches[0][0], caches[0][1], *given),
            2 * prompt.nbytes + caches[0].nbytes // num_requests,
            2 * length * length * num_heads * head_dim,
        )


def _elementwise_cases(shapes: Shapes, device: torch.device) -> Iterator[Case]:
    from llava.engine.gpu import triton_kernels

    num_heads, head_dim, hidden, dtype = shapes.num_heads, shapes.head_dim, shapes.hidden, torch.bfloat16
    angles = torch.rand(shapes.length, head_dim // 2, device=device).repeat(1, 2)
    cache = torch.zeros(2, -(-shapes.length // 16), num_heads, 16, head_dim, dtype=dtype, device=device)
    weight = torch.randn(hidden, dtype=dtype, device=device)
    for num in shapes.positions:
        positions = torch.arange(num, device=device)
        rest = (angles.cos(), angles.sin(), positions, positions, *cache)
        qkv = torch.randn(shapes.num_layers, num, 3 * num_heads * head_dim, dtype=dtype, device=device)
        yield Case(
            f"rotate and store, {num} positions",
            [partial(triton_kernels.rotate_and_store, rows, *rest) for rows in qkv],
            partial(reference.rotate_and_store, qkv[0], *rest),
            2 * qkv[0].nbytes,
        )
        rows = torch.randn(shapes.num_layers, num, hidden, dtype=dtype, device=device)
        yield Case(
            f"norm, {num} rows of {hidden}",
            [partial(triton_kernels.add_rms_norm, residual, None, weight, 1e-5) for residual in rows],
            partial(reference.add_rms_norm, rows[0], None, weight, 1e-5),
            2 * rows[0].nbytes,
        )
        gate_up = torch.randn(shapes.num_layers, num, 2 * shapes.intermediate, dtype=dtype, device=device)
        yield Case(
            f"SiLU times up, {num} rows of {shapes.intermediate}",
            [partial(triton_kernels.silu_multiply, both) for both in gate_up],
            partial(reference.silu_multiply, gate_up[0]),
            gate_up[0].nbytes * 3 // 2,
        )


def _product_cases(shapes: Shapes, device: torch.device) -> Iterator[Case]:
    from llava.engine.gpu import triton_kernels

    rows, columns = 3 * shapes.num_heads * shapes.head_dim, shapes.hidden
    dense = torch.randn(shapes.num_layers, rows, columns, dtype=torch.bfloat16, device=device)
    inputs = [torch.randn(num, columns, dtype=torch.bfloat16, device=device) for num in shapes.positions]
    for x in inputs:
        yield Case(
            f"{len(x)} x {columns} x {rows}, 16 bits, by torch",
            [partial(torch.nn.functional.linear, x, weight) for weight in dense],
            partial(torch.nn.functional.linear, x.float(), dense[0].float()),
            dense[0].nbytes,
            2 * len(x) * rows * columns,
        )
    for bits in quantization.BITS:
        matrices = [quantization.quantize(weight, bits) for weight in dense]
        for x in inputs:
            yield Case(
                f"{len(x)} x {columns} x {rows}, {bits} bits",
                [partial(triton_kernels.quantized_matmul, x, matrix) for matrix in matrices],
                partial(reference.quantized_matmul, x, matrices[0]),
                matrices[0].num_bytes,
                2 * len(x) * rows * columns,
            )


if __name__ == "__main__":
    sys.exit(main())
