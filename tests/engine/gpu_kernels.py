"""The Triton kernels compared with torch: on the GPU if there is one, else in Triton's interpreter on the CPU.

Not collected with the other tests, since Triton decides once for a process whether it interprets: ``test_gpu_kernels``
runs this file in a process of its own, and on a machine with a GPU anybody can: ``pytest tests/engine/gpu_kernels.py``.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.engine.gpu import check, reference
from llava.engine.gpu.choice import choose_kernels
from llava.engine.gpu.interpreter import interpret_kernels
from llava.engine.gpu.workspace import DecodeWorkspace
from llava.native import quantization
from llava.native.quantization import QuantizedMatrix

if not torch.cuda.is_available():
    interpret_kernels()  # also holds that nothing above has imported Triton, which need not be installed

from llava.engine.gpu import triton_kernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALVES = [torch.bfloat16, torch.float16]
ALL = [torch.float32, *HALVES]


def assert_close(out: torch.Tensor, expected: torch.Tensor) -> None:
    """Within what sums in float32 of inputs in their dtype differ by; no NaN."""
    assert out.dtype == expected.dtype
    limit = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[out.dtype]
    torch.testing.assert_close(out, expected, atol=limit, rtol=limit)


class Cache:
    """Keys and values of requests of these lengths in blocks of a random order, among blocks and places of NaN.

    Table entries past a request's blocks point far outside of all memory.
    """

    def __init__(
        self, lengths: list[int], num_kv_heads: int, block_tokens: int, head_dim: int, dtype: torch.dtype
    ) -> None:
        counts = [-(-length // block_tokens) for length in lengths]
        order = torch.randperm(sum(counts) + 2).to(torch.int32)
        self.tables = torch.full((len(lengths), max(counts) + 1), 2**30, dtype=torch.int32)
        shape = (len(order), num_kv_heads, block_tokens, head_dim)
        self.keys, self.values = (torch.full(shape, torch.nan, dtype=dtype) for _ in range(2))
        used = 0
        for table, count, length in zip(self.tables, counts, lengths, strict=True):
            table[:count] = order[used : used + count]
            used += count
            positions = torch.arange(length)
            blocks, offsets = table[positions // block_tokens].long(), positions % block_tokens
            for tensor in (self.keys, self.values):
                tensor[blocks, :, offsets] = torch.randn(length, num_kv_heads, head_dim).to(dtype)
        self.lengths = torch.tensor(lengths, dtype=torch.int32).to(DEVICE)
        self.keys, self.values, self.tables = (each.to(DEVICE) for each in (self.keys, self.values, self.tables))

    def decode(self, queries: torch.Tensor, window: int | None, num_splits: int | None) -> tuple[torch.Tensor, ...]:
        """Decode attention of the kernel, and torch's."""
        num_kv_heads, head_dim = self.keys.shape[1], self.keys.shape[3]
        workspace = DecodeWorkspace(len(queries), queries.shape[1], num_kv_heads, head_dim, DEVICE, num_splits)
        given = (queries, self.keys, self.values, self.tables, self.lengths, head_dim**-0.5, window, workspace)
        return triton_kernels.decode_attention(*given), reference.decode_attention(*given)

    def extend(self, queries: torch.Tensor, counts: list[int], window: int | None) -> tuple[torch.Tensor, ...]:
        """Extend attention of the kernel, and torch's."""
        starts = torch.tensor([0, *counts]).cumsum(0).to(torch.int32).to(DEVICE)
        scaling = self.keys.shape[3] ** -0.5
        given = (queries, self.keys, self.values, self.tables, starts, self.lengths, scaling, window)
        return triton_kernels.extend_attention(*given), reference.extend_attention(*given)


def test_a_gpu_gets_the_kernels_and_a_cpu_torch() -> None:
    assert choose_kernels(DEVICE) is (triton_kernels if DEVICE.type == "cuda" else reference)
    for name in triton_kernels.__all__:
        kernel, expected = (inspect.signature(getattr(module, name)) for module in (triton_kernels, reference))
        assert kernel == expected


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(DEVICE, dtype)


@pytest.mark.parametrize(
    ("dtype", "num_heads", "num_kv_heads", "head_dim", "block_tokens", "window", "num_splits", "lengths"),
    [
        (torch.bfloat16, 2, 2, 128, 16, None, 2, [1, 15, 16, 17, 140]),  # one block, its boundaries, many blocks
        (torch.float32, 4, 1, 64, 16, None, None, [100]),  # as many splits as for a whole GPU
        (torch.float16, 7, 1, 80, 16, 20, 2, [1, 20, 21, 130]),  # a padded group, a padded dimension, a window
        (torch.float32, 8, 1, 96, 4, None, 1, [64, 65]),  # without a second kernel
        (torch.bfloat16, 20, 1, 16, 32, 1, 2, [40, 3]),  # more heads than a tensor core's rows; only itself is seen
        (torch.float32, 4, 2, 8, 1, 6, 8, [9, 5]),  # a head that is smaller than a tile, a position per block
    ],
)
def test_decode_attention_is_torchs(
    dtype: torch.dtype,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    block_tokens: int,
    window: int | None,
    num_splits: int | None,
    lengths: list[int],
) -> None:
    cache = Cache(lengths, num_kv_heads, block_tokens, head_dim, dtype)
    out, expected = cache.decode(draw(len(lengths), num_heads, head_dim, dtype=dtype), window, num_splits)
    assert_close(out, expected)


@pytest.mark.parametrize("num_splits", [1, 4])
def test_a_padding_row_of_decode_attention_gets_zeros_and_reads_no_block(num_splits: int) -> None:
    cache = Cache([0, 5, 0], 1, 16, 16, torch.float32)
    out, expected = cache.decode(draw(3, 2, 16), None, num_splits)
    assert_close(out, expected)
    assert not out[0].any()
    assert not out[2].any()


@pytest.mark.parametrize(
    ("dtype", "num_heads", "num_kv_heads", "head_dim", "block_tokens", "window", "counts", "lengths"),
    [
        (torch.bfloat16, 2, 2, 128, 16, None, [130], [130]),  # a prompt, of more than one tile
        (torch.float32, 4, 1, 64, 16, None, [1, 40, 1, 0, 3], [17, 90, 64, 12, 3]),  # chunks beside single positions
        (torch.float16, 7, 1, 80, 16, 20, [64, 1, 9], [130, 21, 9]),  # a padded group, a padded dimension, a window
        (torch.float32, 8, 1, 96, 4, 6, [17, 2], [65, 2]),
        (torch.bfloat16, 8, 2, 16, 32, 1, [5, 70], [40, 70]),  # only itself is seen
    ],
)
def test_extend_attention_is_torchs(
    dtype: torch.dtype,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    block_tokens: int,
    window: int | None,
    counts: list[int],
    lengths: list[int],
) -> None:
    cache = Cache(lengths, num_kv_heads, block_tokens, head_dim, dtype)
    out, expected = cache.extend(draw(sum(counts), num_heads, head_dim, dtype=dtype), counts, window)
    assert_close(out, expected)


def test_queries_that_belong_to_no_request_get_zeros() -> None:
    cache = Cache([20, 0], 1, 16, 16, torch.float32)
    out, expected = cache.extend(draw(45, 2, 16), [3, 0], None)
    assert_close(out, expected)
    assert not out[3:].any()


def test_tiles_find_their_request_among_more_than_one_load_of_them() -> None:
    counts = [0, 0, 2, 1] * 17
    cache = Cache([max(count, 1) + i % 5 for i, count in enumerate(counts)], 1, 8, 16, torch.float32)
    out, expected = cache.extend(draw(sum(counts), 1, 16), counts, None)
    assert_close(out, expected)


@given(st.data())
@settings(max_examples=4)
def test_attention_is_torchs_for_any_mix_of_requests(data: Any) -> None:
    lengths = data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=2))
    counts = [data.draw(st.integers(0, length)) for length in lengths]
    num_kv_heads, group = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 5))
    head_dim, block_tokens = 2 * data.draw(st.integers(4, 20)), 2 ** data.draw(st.integers(0, 5))
    dtype, window = data.draw(st.sampled_from(ALL)), data.draw(st.none() | st.integers(1, 60))
    cache = Cache(lengths, num_kv_heads, block_tokens, head_dim, dtype)
    num_heads = group * num_kv_heads
    assert_close(*cache.extend(draw(sum(counts), num_heads, head_dim, dtype=dtype), counts, window))
    num_splits = 2 ** data.draw(st.integers(0, 2))
    assert_close(*cache.decode(draw(len(lengths), num_heads, head_dim, dtype=dtype), window, num_splits))


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim", "block_tokens"), [(7, 1, 80, 16), (4, 4, 128, 4), (3, 3, 6, 1)]
)
def test_rotated_queries_and_stored_keys_and_values_are_torchs(
    dtype: torch.dtype, num_heads: int, num_kv_heads: int, head_dim: int, block_tokens: int
) -> None:
    slots = torch.tensor([5, -1, 2 * block_tokens + block_tokens - 1, 3 * block_tokens], device=DEVICE)
    slots[0] %= block_tokens
    positions = torch.tensor([3, 0, 29, 7], dtype=torch.int32, device=DEVICE)
    qkv = draw(4, (num_heads + 2 * num_kv_heads) * head_dim, dtype=dtype)
    cos, sin = draw(30, head_dim), draw(30, head_dim)
    shape = (4, num_kv_heads, block_tokens, head_dim)
    caches = [[torch.zeros(shape, dtype=dtype, device=DEVICE) for _ in range(2)] for _ in range(2)]
    before = qkv.clone()
    queries = triton_kernels.rotate_and_store(qkv, cos, sin, positions, slots, *caches[0])
    expected = reference.rotate_and_store(qkv, cos, sin, positions, slots, *caches[1])
    assert torch.equal(qkv, before)
    assert_close(queries, expected)
    assert_close(caches[0][0], caches[1][0])
    assert torch.equal(caches[0][1], caches[1][1])  # values are copied


def test_slots_may_be_of_32_bits_and_rotary_tables_of_the_models_dtype() -> None:
    qkv, cos, sin = draw(2, 48, dtype=torch.bfloat16), *draw(2, 9, 16, dtype=torch.bfloat16)
    positions = torch.tensor([8, 1], device=DEVICE)
    caches = [[torch.zeros(2, 1, 4, 16, dtype=torch.bfloat16, device=DEVICE) for _ in range(2)] for _ in range(2)]
    slots = torch.tensor([7, 0], dtype=torch.int32, device=DEVICE)
    queries = triton_kernels.rotate_and_store(qkv, cos, sin, positions, slots, *caches[0])
    assert_close(queries, reference.rotate_and_store(qkv, cos, sin, positions, slots, *caches[1]))
    assert_close(torch.stack(caches[0]), torch.stack(caches[1]))


@pytest.mark.parametrize("has_delta", [True, False])
@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("size", [24, 1100])
def test_residual_and_norm_are_torchs(dtype: torch.dtype, size: int, has_delta: bool) -> None:
    residual, weight = draw(3, size, dtype=dtype), draw(size, dtype=dtype)
    delta = draw(3, size, dtype=dtype) if has_delta else None
    expected_residual = residual.clone()
    normed = triton_kernels.add_rms_norm(residual, delta, weight, 1e-5)
    assert_close(normed, reference.add_rms_norm(expected_residual, delta, weight, 1e-5))
    assert torch.equal(residual, expected_residual)


def test_a_residual_may_be_kept_in_float32() -> None:
    residual, delta, weight = draw(2, 64), draw(2, 64, dtype=torch.bfloat16), draw(64, dtype=torch.bfloat16)
    expected_residual = residual.clone()
    normed = triton_kernels.add_rms_norm(residual, delta, weight, 1e-6)
    assert_close(normed, reference.add_rms_norm(expected_residual, delta, weight, 1e-6))
    assert torch.equal(residual, expected_residual)


@pytest.mark.parametrize("dtype", ALL)
def test_silu_times_up_is_torchs(dtype: torch.dtype) -> None:
    gate_up = draw(3, 2 * 1100, dtype=dtype) * 4
    assert_close(triton_kernels.silu_multiply(gate_up), reference.silu_multiply(gate_up))


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("num", "rows", "columns", "has_bias"),
    [(1, 40, 1100, True), (1, 16, 40, False), (3, 70, 72, False), (33, 16, 300, True), (65, 24, 40, True)],
)
def test_products_with_quantized_matrices_are_torchs(
    dtype: torch.dtype, bits: int, num: int, rows: int, columns: int, has_bias: bool
) -> None:
    matrix = quantization.quantize(torch.randn(rows, columns), bits)
    matrix = QuantizedMatrix(bits, rows, columns, matrix.data.to(DEVICE), matrix.scales.to(DEVICE))
    x = draw(num, columns, dtype=dtype) / columns**0.5
    bias = draw(rows, dtype=dtype) if has_bias else None
    assert_close(triton_kernels.quantized_matmul(x, matrix, bias), reference.quantized_matmul(x, matrix, bias))


def test_blocks_may_lie_beyond_two_billion_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE.type == "cpu":  # no second copy of the whole memory after a kernel
        from triton.runtime.interpreter import GridExecutor

        monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *arguments: None)
    shape = (2**31 // (16 * 128) + 2, 1, 16, 128)
    keys, values = (torch.empty(shape, dtype=torch.float16, device=DEVICE) for _ in range(2))
    slots = torch.arange((len(keys) - 1) * 16, len(keys) * 16, device=DEVICE)
    positions = torch.arange(16, device=DEVICE)
    qkv, cos, sin = draw(16, 3 * 128, dtype=torch.float16), torch.ones(16, 128).to(DEVICE), torch.zeros(16, 128)
    queries = triton_kernels.rotate_and_store(qkv, cos, sin.to(DEVICE), positions, slots, keys, values)
    assert torch.equal(keys[-1, 0], qkv[:, 128:256])
    tables = torch.tensor([[len(keys) - 1]], dtype=torch.int32, device=DEVICE)
    lengths, starts = (torch.tensor(each, dtype=torch.int32, device=DEVICE) for each in ([16], [0, 16]))
    given = (keys, values, tables)
    out = triton_kernels.extend_attention(queries, *given, starts, lengths, 0.1, None)
    expected = reference.extend_attention(queries, keys[-1:], values[-1:], tables * 0, starts, lengths, 0.1, None)
    assert_close(out, expected)
    workspace = DecodeWorkspace(1, 1, 1, 128, DEVICE, 1)
    assert_close(triton_kernels.decode_attention(queries[-1:], *given, lengths, 0.1, None, workspace), expected[-1:])


def test_the_check_of_a_machines_kernels_finds_them_right_and_says_so_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check.main() == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["equal"]
    assert len(facts["kernels"]) == 20 or DEVICE.type == "cuda"
    monkeypatch.setattr(check, "_attention_cases", lambda *arguments: iter(()))
    monkeypatch.setattr(check, "_product_cases", lambda *arguments: iter(()))
    monkeypatch.setattr(triton_kernels, "add_rms_norm", lambda *arguments: 1 / 0)
    assert check.main() == 1
    out = capsys.readouterr().out
    assert "FAILED: ZeroDivisionError" in out
    assert "SiLU times up" in out  # the others' results are there
    monkeypatch.setattr(check, "LIMIT", -1.0)
    monkeypatch.setattr(triton_kernels, "add_rms_norm", reference.add_rms_norm)
    assert check.main() == 1
