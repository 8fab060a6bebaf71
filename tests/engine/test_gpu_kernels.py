"""The GPU kernels without a GPU: in Triton's interpreter, compiled for an H100, and their reference against others."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from llava.engine import paged
from llava.engine.gpu import reference
from llava.engine.gpu.workspace import MOST_SPLITS, DecodeWorkspace
from tests.engine.test_native import make_rows

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, in which Triton is imported anew, without a GPU, and compiles into ``folder``."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRITON_")},
        "TRITON_CACHE_DIR": str(folder),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)


@needs_triton
def test_the_kernels_compute_what_torch_does_in_tritons_interpreter(tmp_path: Path) -> None:
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/engine/gpu_kernels.py")
    done = run(tmp_path, *words)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each kernel became for an H100."""
    done = run(tmp_path_factory.mktemp("triton"), "-W", "error", "-m", "tests.engine.gpu_compilation")
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@needs_triton
def test_every_kernel_compiles_for_an_h100_and_fits_the_shared_memory_of_smaller_gpus(compiled: Any) -> None:
    names = {name.split(": ")[-1] for name in compiled}
    attention, quantized = {"_decode", "_join", "_extend"}, {"_matvec", "_matmul", "_sum_splits", "_dequantize"}
    assert names == attention | quantized | {"_rotate_and_store", "_add_rms_norm", "_silu_multiply"}
    # What a program may have on compute capability 8.6 and 8.9; an H100 has 227 KB.
    assert max(facts["shared_bytes"] for facts in compiled.values()) <= 99 * 1024


@needs_triton
@pytest.mark.parametrize("kernel", ["_decode", "_extend"])
def test_attention_in_16_bits_uses_tensor_cores_and_copies_16_bytes_ahead(compiled: Any, kernel: str) -> None:
    facts = compiled[kernel]
    assert facts["tensor_core_products"] > 0
    assert facts["wide_copies"] > 0


@needs_triton
@pytest.mark.parametrize("kernel", ["_decode", "_extend"])
def test_attention_in_float32_uses_no_tensor_core(compiled: Any, kernel: str) -> None:
    facts = compiled[f"float32: {kernel}"]
    assert facts["tensor_core_products"] == 0
    assert facts["float32_products"] > 0


@needs_triton
@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_words_are_copied_16_bytes_at_a_time(compiled: Any, bits: int) -> None:
    assert compiled[f"{bits} bits: _matvec"]["wide_copies"] > 0
    assert compiled[f"{bits} bits: _matmul"]["wide_copies"] > 0
    assert compiled[f"{bits} bits: _matmul"]["tensor_core_products"] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_of_the_norm_is_transformers_to_the_bit(dtype: torch.dtype) -> None:
    norm = LlamaRMSNorm(72, 1e-5).to(dtype)
    norm.weight.data.normal_()
    residual, delta = torch.randn(3, 72).to(dtype), torch.randn(3, 72).to(dtype)
    with torch.no_grad():
        expected = norm(residual + delta)
        normed = reference.add_rms_norm(residual, delta, norm.weight.data, 1e-5)
    assert torch.equal(normed, expected)
    assert torch.equal(reference.add_rms_norm(residual, None, norm.weight.data, 1e-5), expected)


def test_the_reference_of_rotary_embeddings_is_transformers_and_writes_where_slots_say() -> None:
    num_heads, num_kv_heads, head_dim = 6, 2, 20
    qkv, angles = torch.randn(5, 10 * head_dim), torch.randn(9, head_dim // 2).repeat(1, 2)
    cos, sin, positions = angles.cos(), angles.sin(), torch.tensor([8, 0, 3, 3, 1])
    keys, values = torch.zeros(3, 2, 4, head_dim), torch.zeros(3, 2, 4, head_dim)
    slots = torch.tensor([11, -1, 0, 5, 4])
    queries = reference.rotate_and_store(qkv, cos, sin, positions, slots, keys, values)
    q, k, v = qkv.view(1, 5, -1, head_dim).transpose(1, 2).split([num_heads, num_kv_heads, num_kv_heads], 1)
    q, k = apply_rotary_pos_emb(q, k, cos[positions][None], sin[positions][None])
    torch.testing.assert_close(queries, q[0].transpose(0, 1), atol=1e-6, rtol=1e-6)
    for i, slot in ((0, 11), (2, 0), (3, 5), (4, 4)):
        torch.testing.assert_close(keys[slot // 4, :, slot % 4], k[0, :, i], atol=1e-6, rtol=1e-6)
        assert torch.equal(values[slot // 4, :, slot % 4], v[0, :, i])
    assert values.abs().sum(-1).count_nonzero() == 4 * num_kv_heads  # nothing for the padding


@pytest.mark.parametrize("window", [None, 7])
def test_the_reference_of_attention_is_that_of_the_paged_cache(window: int | None) -> None:
    counts, lengths = [1, 9, 30, 1], [1, 20, 30, 33]
    cache = paged.KVCache(1, 40, 2, 4, 8, torch.float32, CPU)
    cache.keys[0].normal_()
    cache.values[0].normal_()
    rows = make_rows(counts, lengths, 4, 40)
    queries = torch.randn(sum(counts), 6, 8)
    expected = cache.attend(0, queries, rows, 0.3, window)
    given = (cache.keys[0], cache.values[0], rows.tables)
    out = reference.extend_attention(queries, *given, rows.starts, rows.lengths, 0.3, window)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    ends = rows.starts[1:].long() - 1
    workspace = DecodeWorkspace(4, 6, 2, 8, CPU)
    last = reference.decode_attention(queries[ends], *given, rows.lengths, 0.3, window, workspace)
    torch.testing.assert_close(last, expected[ends], atol=1e-5, rtol=1e-5)


def test_a_workspace_cuts_fewer_requests_into_more_splits_within_one_allocation() -> None:
    workspace = DecodeWorkspace(70, 32, 32, 128, CPU)
    assert [workspace.choose_splits(count) for count in (1, 2, 8, 16, 17, 70)] == [32, 16, 4, 2, 1, 1]
    addresses = set()
    for count in range(1, 71):
        sums, logs = workspace.view(count)
        assert sums.shape == (count, 32, workspace.choose_splits(count), 128)
        assert logs.shape == sums.shape[:3]
        addresses.add((sums.data_ptr(), logs.data_ptr()))
    assert len(addresses) == 1
    assert DecodeWorkspace(1, 4, 1, 64, CPU).choose_splits(1) == MOST_SPLITS
