"""The native kernels compared with torch, for every instruction set of this CPU, and the build of their library."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.engine import native_layers, paged
from llava.engine.engine import Engine
from llava.engine.sampler import Sampler, sample_all
from llava.model.quantized_linear import quantize_linears
from llava.native import abi, calls, library
from llava.sampling import Sampling
from tests.engine.test_engine import audit, generate, load, mixed_questions, tokens
from tests.tiny import FAMILIES, make_model
from tests.tiny_tokenizers import words_and_letters

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("g++"), reason="the native library needs Linux and g++"
)
# Wide enough for vectors: heads of 16 in groups of 2.
WIDE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 72}
CPU_FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
MACHINES = {"native": "", "v3": "avx2 fma bmi2", "v2": "sse4_2"}


@pytest.fixture(scope="module", params=MACHINES)
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """kernels.cpp, built for one instruction set, in place of the library in use."""
    if not all(f" {flag}" in CPU_FLAGS for flag in MACHINES[request.param].split()):
        pytest.skip(f"this CPU has not {MACHINES[request.param]}")
    if request.param == "native":
        assert library.load() is not None, library.status()
        yield library.load()
        return
    assert library.load() is not None  # opens torch's OpenMP
    other = ctypes.CDLL(str(build_once(request.param, tmp_path_factory)))
    usual = library.load
    library.load = lambda: other  # type: ignore[assignment]
    yield other
    library.load = usual


def build_once(machine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library for an instruction set, built by the first process of the run that needs it."""
    import fcntl  # which Linux has

    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    object_file, linked = folder / f"kernels-{machine}.o", folder / f"kernels-{machine}.so"
    with (folder / f"kernels-{machine}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not linked.exists():
            # What an instruction set changes are the headers' own branches; -O1 compiles them in a fifth of the time.
            words = ["-O1", f"-march=x86-64-{machine}", "-c", str(library.SOURCE), "-o", str(object_file)]
            subprocess.run(["g++", *library.FLAGS, *words], check=True)
            whole = linked.with_suffix(".part")
            subprocess.run(["g++", "-shared", str(object_file), "-o", str(whole)], check=True)
            whole.rename(linked)
    return linked


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    # bfloat16 has 8 bits: both ways round queries, keys, values and weights, torch in other places.
    return {"atol": 2e-5, "rtol": 2e-5} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}


def make_rows(counts: list[int], lengths: list[int], block_tokens: int, num_blocks: int) -> paged.Rows:
    """Requests with that many queries at the end of that many positions, in blocks of a random order."""
    free = torch.randperm(num_blocks, generator=torch.Generator().manual_seed(1)).to(torch.int32)
    most = max(-(-length // block_tokens) for length in lengths)
    tables, slots, used = torch.zeros(len(counts), most, dtype=torch.int32), [], 0
    for table, count, length in zip(tables, counts, lengths, strict=True):
        needed = -(-length // block_tokens)
        table[:needed] = free[used : used + needed]
        used += needed
        position = torch.arange(length - count, length)
        slots.append(table[position // block_tokens].long() * block_tokens + position % block_tokens)
    starts = torch.tensor([0, *counts]).cumsum(0).to(torch.int32)
    return paged.Rows(starts, torch.tensor(lengths, dtype=torch.int32), tables, torch.cat(slots))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "head_dim", "block_tokens", "window"),
    [(4, 2, 16, 16, None), (8, 1, 64, 16, None), (6, 6, 128, 32, 20), (4, 4, 80, 48, 5), (28, 4, 32, 16, 100)],
)
def test_attention_over_blocks_is_torchs(
    native: Any,
    dtype: torch.dtype,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    block_tokens: int,
    window: int | None,
) -> None:
    whole = [1, 7, 33, 200, 129]
    shape = (1, 80, num_kv_heads, block_tokens, head_dim, dtype)
    slow, fast = paged.KVCache(*shape, torch.device("cpu")), paged.NativeKVCache(*shape)
    # Stale values of another request must not affect the result.
    for cache in (slow.keys[0], slow.values[0]):
        cache.zero_()
    fast.keys[0].fill_(float("nan"))
    fast.values[0].fill_(float("nan"))
    torch.manual_seed(2)

    def draw(num: int, heads: int) -> torch.Tensor:
        return torch.randn(num, heads, head_dim).to(dtype)

    # Prompts first, then one more position of each, then a chunk of two requests beside one of one.
    for counts, lengths in ((whole, whole), ([1] * 5, [n + 1 for n in whole]), ([1, 3, 40], [3, 11, 74])):
        rows = make_rows(counts, lengths, block_tokens, 80)
        keys, values = draw(sum(counts), num_kv_heads), draw(sum(counts), num_kv_heads)
        queries = 2 * draw(sum(counts), num_heads)
        for cache in (slow, fast):
            cache.store(0, keys, values, rows)
        expected = slow.attend(0, queries, rows, head_dim**-0.5, window)
        out = fast.attend(0, queries, rows, head_dim**-0.5, window)
        torch.testing.assert_close(out, expected, **tolerance(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num", [1, 3, 8, 29])
def test_gemv_is_torchs_product(native: Any, dtype: torch.dtype, num: int) -> None:
    torch.manual_seed(num)
    for width, columns in ((64, 48), (200, 7), (33, 130)):
        rows, weight = torch.randn(num, width).to(dtype), torch.randn(columns, width).to(dtype)
        exact = rows.double() @ weight.double().T
        torch.testing.assert_close(calls.gemv(rows, calls.dense(weight)).double(), exact, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("num_tokens", [7, 1000, 40_000])
def test_the_library_chooses_the_tokens_that_the_slow_way_chooses(native: Any, num_tokens: int) -> None:
    logits = 0.7 * torch.randn(12, num_tokens, generator=torch.Generator().manual_seed(num_tokens))
    kinds: list[dict[str, Any]] = [{}, {"top_k": 30}, {"top_p": 0.5}, {"top_p": 0.95}, {"min_p": 0.3}, {"top_k": 700}]
    settings = [Sampling(temperature=0.9, seed=i, **kinds[i % 6]) for i in range(12)]
    slow, fast = [Sampler(one) for one in settings], [Sampler(one) for one in settings]
    for _ in range(4):
        assert sample_all(logits, fast) == [sampler.sample(row) for sampler, row in zip(slow, logits, strict=True)]


def test_an_allocation_that_fails_is_a_memory_error_that_names_the_bytes(native: Any) -> None:
    numbers = torch.zeros(64)
    wide = abi.Matrix(8, 16, 2**30, numbers.data_ptr(), numbers.data_ptr())
    row_bytes = 2 * 2**30 + 4 * 2**25 + 4
    padded_rows, number_bytes = -(-(2**30) // 6) * 6, 1 if calls.has_vnni() else 2
    for name, num_bytes in (
        ("llava_gemv", 2**30 * row_bytes),
        ("llava_gemm_int8", padded_rows * 2**30 * number_bytes),
    ):
        with pytest.raises(MemoryError, match=f"could not allocate {num_bytes:,} bytes in {name}"):
            calls.call(name, 0, ctypes.byref(wide), 2**30, *[calls.pointer(numbers)] * 2, 1)
    threads = 2**31 - 1
    attention = abi.Attention(1, 1, 1, 16, 16, 1, 0, threads, 0, 1.0, *[numbers.data_ptr()] * 3)
    with pytest.raises(MemoryError, match=r"could not allocate [\d,]{15,} bytes in llava_attend"):
        calls.call("llava_attend", 0, ctypes.byref(attention), *[calls.pointer(numbers)] * 4)
    exact = numbers.view(1, 64) + 1
    assert calls.gemv(exact, calls.dense(exact)).item() == 64  # the library still works


class BothWays:
    """The layers of one model over two caches: Transformers' own layers, and all at once through the library."""

    def __init__(self, family: str, dtype: torch.dtype, window: int | None) -> None:
        model = make_model(family, **WIDE, **({"sliding_window": window} if window else {})).eval().to(dtype)
        self.decoder = model.get_model()
        shape = (len(self.decoder.layers), 80, 2, 64, 16, dtype)
        self.slow, fast = paged.KVCache(*shape, torch.device("cpu")), paged.NativeKVCache(*shape)
        self.layers = native_layers.DecoderLayers(self.decoder, model.config, fast, window, calls.ScratchBuffers())
        self.dtype = dtype
        paged.register()

    def check(self, counts: list[int], lengths: list[int], rows: paged.Rows) -> None:
        """Runs a step both ways: that many positions at the end of that many of each request."""
        hidden = torch.randn(sum(counts), 64).to(self.dtype)
        positions = torch.cat([torch.arange(n - c, n) for c, n in zip(counts, lengths, strict=True)])
        expected = hidden[None]
        rotary = self.decoder.rotary_emb(expected, positions[None])
        config = self.decoder.config
        usual, config._attn_implementation = config._attn_implementation, paged.ATTENTION
        for layer in self.decoder.layers:
            expected = layer(
                expected,
                attention_mask=None,
                position_ids=positions[None],
                position_embeddings=rotary,
                paged=paged.PagedStep(self.slow, rows),
            )
        config._attn_implementation = usual
        exact = self.decoder.rotary_emb(hidden[None].float(), positions[None])
        cos, sin = (part[0].float().contiguous() for part in exact)
        sampled = [i for i in range(len(counts)) if (i + sum(lengths)) % 3]  # later steps see the rest
        out = self.layers.run(hidden, cos, sin, positions, rows, sampled)
        expected = expected[0, rows.starts[1:][sampled] - 1]
        limits = {"atol": 1e-4, "rtol": 1e-4} if self.dtype == torch.float32 else {"atol": 0.15, "rtol": 0.05}
        torch.testing.assert_close(out, expected.float(), **limits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_all_layers_at_once_are_transformers_layers(native: Any, family: str, dtype: torch.dtype) -> None:
    both = BothWays(family, dtype, 20 if family == "mistral" else None)
    torch.manual_seed(3)
    for counts, lengths in (
        ([20, 7], [20, 7]),
        ([33, 21], [53, 28]),
        ([1, 1], [54, 29]),
        ([3, 5], [57, 34]),
        ([1], [58]),
    ):
        both.check(counts, lengths, make_rows(counts, lengths, 64, 80))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_requests_beyond_one_group_are_decoded_in_several(
    native: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    usual = calls.decode_layers
    monkeypatch.setattr(
        calls, "decode_layers", lambda dtype, decoder, batch: (sizes.append(batch.num), usual(dtype, decoder, batch))
    )
    both = BothWays("llama", dtype, None)
    torch.manual_seed(3)
    most = native_layers.MAX_DECODE_POSITIONS
    num = 2 * most + 5
    lengths = [2 + i % 7 for i in range(num)]
    both.check(lengths, lengths, make_rows(lengths, lengths, 64, 80))
    for max_requests, expected in ((native_layers.MAX_DECODING_REQUESTS, [most, most, 5]), (num - 1, [])):
        both.layers._max_decoding_requests = max_requests
        sizes.clear()
        lengths = [length + 1 for length in lengths]
        both.check([1] * num, lengths, make_rows([1] * num, lengths, 64, 80))
        assert sizes == expected
    # More than one position of some request: a prompt.
    both.layers._max_decoding_requests = native_layers.MAX_DECODING_REQUESTS
    sizes.clear()
    counts = [2, *[1] * most]
    lengths = [length + count for count, length in zip(counts, lengths, strict=False)]
    both.check(counts, lengths, make_rows(counts, lengths, 64, 80))
    assert sizes == []


@torch.inference_mode()
def test_a_decode_step_without_memory_fails_alone(native: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    both = BothWays("llama", torch.float32, None)
    torch.manual_seed(3)
    both.check([20, 7], [20, 7], make_rows([20, 7], [20, 7], 64, 80))
    rows = make_rows([1, 1], [21, 8], 64, 80)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "get_num_threads", lambda: 2**31 - 1)  # each of which would have its own buffers
        with pytest.raises(MemoryError, match=r"could not allocate [\d,]{15,} bytes in llava_decode_layers"):
            both.layers.run(torch.zeros(2, 64), *torch.zeros(2, 2, 16), torch.tensor([20, 7]), rows, [0])
    both.check([1, 1], [21, 8], rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 150])
@torch.inference_mode()
def test_requests_with_a_common_prefix_attend_as_each_would_alone(
    native: Any, dtype: torch.dtype, window: int | None
) -> None:
    both = BothWays("mistral" if window else "llama", dtype, window)
    torch.manual_seed(5)
    # Blocks of 64. The next two share the first prompt, the fourth shares less of it, and the fifth shares nothing.
    tables = [[0, 1, 2, 3, 4], [0, 1, 2, 5, 6], [0, 1, 2, 7, 8], [0, 1, 9, 10, 11], [12, 13, 14, 15, 16]]
    table = torch.tensor(tables, dtype=torch.int32)

    def step(which: list[int], counts: list[int], lengths: list[int]) -> None:
        places = [torch.arange(n - c, n) for c, n in zip(counts, lengths, strict=True)]
        slots = [table[i][place // 64].long() * 64 + place % 64 for i, place in zip(which, places, strict=True)]
        starts = torch.tensor([0, *counts]).cumsum(0).to(torch.int32)
        rows = paged.Rows(starts, torch.tensor(lengths, dtype=torch.int32), table[which], torch.cat(slots))
        both.check(counts, lengths, rows)

    step([0, 4], [205, 150], [205, 150])
    step([3], [70], [198])
    step([0, 1, 2, 3, 4], [1, 5, 3, 1, 1], [206, 197, 195, 199, 151])
    step([0, 1, 2, 3, 4], [1] * 5, [207, 198, 196, 200, 152])
    step([2, 0, 4, 1], [2, 1, 4, 6], [198, 208, 156, 204])
    step([1, 2], [1, 1], [205, 199])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_an_mlp_runs_over_few_rows_at_a_time_and_no_row_is_left_out(
    native: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = BothWays("llama", dtype, None)
    torch.manual_seed(3)
    monkeypatch.setattr(native_layers, "MAX_MLP_ROWS", 20)
    for counts, lengths in (([30, 20], [30, 20]), ([31, 2], [61, 22])):
        both.check(counts, lengths, make_rows(counts, lengths, 64, 80))
    inner = both.layers.scratch._buffers["inner"]
    assert len(inner) == 17 * WIDE["intermediate_size"] * both.layers.compute_dtype.itemsize
    parts = native_layers.split_rows(torch.arange(41)[:, None])
    assert [len(part) for part in parts] == [14, 14, 13]
    assert torch.cat(parts).flatten().tolist() == list(range(41))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("settings", [{}, {"block_tokens": 32, "max_step_positions": 40}, {"stall_s": 0.0}])
def test_the_engine_says_the_same_with_it(native: Any, family: str, settings: dict[str, Any]) -> None:
    changes = {"sliding_window": 24} if family == "mistral" else {}
    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), family, **WIDE, **changes)
    questions = mixed_questions(loaded, seed=4, count=10)
    with Engine(loaded, memory_bytes=2**22, **{"block_tokens": 16, **settings}) as engine:
        assert engine._runner.fallback_reason is None
        streams = [engine.submit(asked) for asked in questions]
        said = [tokens(stream) for stream in streams]
        again = [tokens(engine.submit(asked)) for asked in questions]
    audit(engine)
    assert said == again == [generate(loaded, asked) for asked in questions]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [16, 8])
def test_the_head_is_the_same_for_any_number_of_requests(native: Any, dtype: torch.dtype, bits: int) -> None:
    loaded = load(words_and_letters("the cat"), **WIDE)
    loaded.model.to(dtype)
    if bits < 16:
        quantize_linears(loaded.model, bits)
    with Engine(loaded, memory_bytes=2**22) as engine, torch.inference_mode():
        hidden = torch.randn(2 * native_layers.MAX_DECODE_POSITIONS + 3, 64)
        together = engine._runner._compute_logits(hidden)
        alone = [engine._runner._compute_logits(row[None])[0] for row in hidden]
        torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-5)
        model = loaded.model
        expected = model.lm_head(model.get_model().norm(hidden.to(dtype))).float()
        limits = {"atol": 1e-3, "rtol": 1e-3} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
        torch.testing.assert_close(together, expected, **limits)


# Prints the status after each entry of a list: variables to set, or what is amiss: a damage to do to the library that
# was built, or a user without a home. Each time in a process of its own, which is forked, because importing torch is
# what takes long; with "together", none waits for the one before it.
STATUSES = """
import json, os, pathlib, sys, torch
def refuse(): raise RuntimeError("no home")
steps = json.loads(sys.argv[1])
num_together = len(steps) if "together" in sys.argv else 1
for i, (variables, amiss) in enumerate(steps, 1):
    if amiss not in (None, "homeless"):
        (built,) = pathlib.Path(os.environ["XDG_CACHE_HOME"], "llava").iterdir()
        built.write_bytes(built.read_bytes()[:4000] if amiss == "cut" else amiss.encode())
    if os.fork() == 0:
        os.environ |= variables
        if amiss == "homeless":
            pathlib.Path.home = refuse
        from llava.native import library
        print(library.load() is not None, library.status(), flush=True)
        sys.exit()
    for _ in range(num_together if i % num_together == 0 else 0):
        os.wait()
"""
Steps = list[tuple[dict[str, str], str | None]]


def list_statuses(steps: Steps, *words: str, **environment: str) -> list[str]:
    command = [sys.executable, "-c", STATUSES, json.dumps(steps), *words]
    variables = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, check=True).stdout.splitlines()


def test_without_a_compiler_or_when_disabled_torch_computes_everything(tmp_path: Path) -> None:
    failing = tmp_path / "c++"
    failing.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    failing.chmod(0o755)
    steps = [{"LLAVA_NATIVE": "0"}, {"PATH": ""}, {"CXX": str(tmp_path / "absent")}, {"CXX": str(failing)}]
    statuses = list_statuses([(each, None) for each in steps], XDG_CACHE_HOME=str(tmp_path), CXX="")
    disabled, without, absent, failed = statuses
    assert disabled == "False LLAVA_NATIVE is 0"
    assert "no C++ compiler" in without
    assert absent.startswith("False building it failed")
    assert failed.startswith("False building it failed")
    assert failed.endswith("broken")


@pytest.fixture
def quick_compiler(native: Any, tmp_path: Path) -> str:
    """A fake compiler with an argument, which copies the built library and records its calls."""
    usual, made = library._find(), tmp_path / "made.so"
    made.write_bytes(usual.read_bytes()[:-32])
    script = tmp_path / "quick c++"
    script.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\nfor last; do true; done\ncp {made} "$last"\n')
    script.chmod(0o755)
    return f"'{script}' -pipe"


def count_builds(tmp_path: Path) -> int:
    return (tmp_path / "calls").read_text().count("-shared")


@pytest.mark.parametrize("native", ["native"], indirect=True)
def test_a_damaged_library_is_built_again(quick_compiler: str, tmp_path: Path) -> None:
    damages: list[str | None] = [None, "", "cut", "text", None]
    steps: Steps = [({}, damage) for damage in damages]
    statuses = list_statuses(steps, CXX=quick_compiler, XDG_CACHE_HOME=str(tmp_path))
    assert statuses == ["True compiled for this CPU"] * 5
    assert count_builds(tmp_path) == 4


@pytest.mark.parametrize("native", ["native"], indirect=True)
def test_without_a_writable_cache_a_process_builds_its_own_library(quick_compiler: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    steps: Steps = [({"XDG_CACHE_HOME": str(tmp_path / "file")}, None), ({"XDG_CACHE_HOME": ""}, "homeless")]
    statuses = list_statuses(steps, CXX=quick_compiler, TMPDIR=str(tmp_path))
    assert statuses == ["True compiled for this CPU, for this process alone: nothing can be kept"] * 2
    assert not list(tmp_path.glob("llava-*"))
    assert count_builds(tmp_path) == 2


@pytest.mark.parametrize("native", ["native"], indirect=True)
def test_two_concurrent_builds_leave_one_library(quick_compiler: str, tmp_path: Path) -> None:
    # Neither compilation ends before both have begun.
    waiting = tmp_path / "waiting c++"
    waiting.write_text(
        f"#!/bin/sh\ncase \"$*\" in *' -c '*) echo here >> '{tmp_path}/begun'\n"
        f"while [ $(wc -l < '{tmp_path}/begun') -lt 2 ]; do sleep 0.05; done;; esac\nexec {quick_compiler} \"$@\"\n"
    )
    waiting.chmod(0o755)
    variables = {"CXX": f"'{waiting}'", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    statuses = list_statuses([({}, None)] * 2, "together", **variables)
    assert statuses == ["True compiled for this CPU"] * 2
    assert count_builds(tmp_path) == 2
    assert [path.suffix for path in (tmp_path / "cache/llava").iterdir()] == [".so"]
