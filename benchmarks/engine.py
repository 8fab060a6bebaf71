"""The engine compared with Transformers, and with vLLM and llama.cpp if installed, on the same shapes in one run.

One image of 1000 x 667 px and a question of 64 tokens: seconds until the image is encoded, until the first token,
and until the first token of another question about the same image; tokens per second; many questions at once, about
different images and about one; seconds from starting Python to being ready; peak memory. The table starts with this
machine's own limits, measured in the same run, and the best figures that they allow, and ends with the goals beside
the figures. With shape XS the embedded model is measured, too: starting, 64 requests, sampling.

    python benchmarks/engine.py [--shape XS] [--dtype bfloat16] [--vllm-python PYTHON] [--llama-python PYTHON]
                                [--keep FOLDER]

Each side runs in a process of its own, with the same random weights, except llama.cpp, which has random weights of its
own and gets as many words in place of the image. Shapes: XS (70 M parameters), S (1.4 B: CLIP ViT-L/14-336 with a Llama
of 22 layers), 7B (LLaVA-NeXT 7B).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from goals import print_goals  # beside this file

STARTED = time.time()
IMAGE_PX = (1000, 667)
QUESTION_TOKENS = 64
NEW_TOKENS = 128
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
VOCABULARY = 32000
NUM_ARRIVING = 2  # images while a request is answered, each of which may delay it by the engine's ``stall_s``
MARK = "figures: "


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA-NeXT, and the numbers of questions at once and of their new tokens that are measured.

    ``has_gap``: whether the gap while images arrive is measured, which takes three whole prompts.
    """

    tower: dict[str, int]
    decoder: dict[str, int]
    crowd: tuple[int, ...]
    crowd_tokens: int
    repeats: int
    has_gap: bool = True


SHAPES = {
    "XS": Shape(
        {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 6},
        {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
        | {"num_key_value_heads": 8},
        (8, 32),
        32,
        5,
    ),
    "S": Shape(
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32}
        | {"num_key_value_heads": 4},
        (4,),
        32,
        2,
    ),
    "7B": Shape(
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
        | {"num_key_value_heads": 32},
        (),
        32,
        1,
        has_gap=False,
    ),
}


def main() -> int:
    """Writes the checkpoints, measures every side and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="XS", choices=SHAPES)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", help="a folder for the checkpoints, which the next run reuses")
    parser.add_argument("--vllm-python", help="a Python that has vLLM, to measure it, too")
    parser.add_argument("--without-peers", action="store_true", help="measure only the engine")
    parser.add_argument("--llama-python", help="a Python that has llama-cpp-python and gguf, to measure that, too")
    known = [side for side in MEASURES if side != "limits"]
    parser.add_argument("--sides", help=f"some of {', '.join(known)}, separated by commas (default: those installed)")
    parser.add_argument("--brief", action="store_true", help="each question once, and never many at once")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--only", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.brief:
        SHAPES[options.shape] = dataclasses.replace(SHAPES[options.shape], crowd=(), repeats=1)
    if options.only:
        print(MARK + json.dumps(MEASURES[options.only](options)), flush=True)
        return 0
    unknown = set(options.sides.split(",") if options.sides else ()) - set(known)
    if unknown:
        parser.error(f"--sides has {', '.join(sorted(unknown))}, but the sides are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or folder
        write_checkpoints(options)
        sides = options.sides.split(",") if options.sides else find_sides(options)
        limits = run_alone("limits", options)
        measured = {side: run_alone(side, options) for side in sides}
        report(options, limits, {side: figures for side, figures in measured.items() if figures})
    return 0


def find_sides(options: argparse.Namespace) -> list[str]:
    """The engine in all its precisions, and the other engines that are installed."""
    sides = ["engine"]
    if options.device == "cpu":
        sides += ["engine int8", "engine int4", "engine int8 arithmetic"]
    if options.device == "cpu" and options.shape == "XS" and not options.brief:
        sides.append("embedded")
    if options.without_peers:
        return sides
    sides.append("transformers")
    sides += ["vllm"] if options.vllm_python else []
    return sides + (["llama.cpp Q8_0", "llama.cpp Q4_0"] if options.llama_python else [])


def checkpoint(options: argparse.Namespace, layout: str) -> Path:
    return Path(options.keep) / f"{options.shape}-{options.dtype}-{layout}"


def write_checkpoints(options: argparse.Namespace) -> None:
    """Random weights in the original layout and in llava-hf's."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from llava.image.pixels import ImageProcessor
    from llava.model.checkpoint import save_checkpoint
    from llava.model.conversion import convert
    from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM

    original, hf = checkpoint(options, "original"), checkpoint(options, "hf")
    shape = SHAPES[options.shape]
    if not original.is_dir():
        words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(3, VOCABULARY))]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        config = LlavaConfig(
            **shape.decoder,
            vocab_size=VOCABULARY,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            use_mm_proj=True,
            mm_projector_type="mlp2x_gelu",
            mm_hidden_size=shape.tower["hidden_size"],
            mm_vision_tower="clip-random",
            mm_vision_select_layer=-2,
            mm_vision_select_feature="patch",
            mm_vision_config={**shape.tower, "image_size": 336, "patch_size": 14, "projection_dim": 768},
            mm_patch_merge_type="spatial_unpad",
            image_aspect_ratio="anyres",
            image_grid_pinpoints=PINPOINTS,
            tie_word_embeddings=False,
        )
        torch.manual_seed(0)
        dtype = getattr(torch, options.dtype)
        with torch.device("meta"):
            model: Any = LlavaLlamaForCausalLM(config).to(dtype)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.fill_(1.0) if "norm" in name and name.endswith("weight") else weight.normal_(0, 0.02)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
        )
        save_checkpoint(model, fast, ImageProcessor(size=336), original)
        del model
    if not hf.is_dir() and not options.without_peers:
        convert(original, hf, "hf")


def run_alone(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one side, from a new process; None, with a message, for another engine that fails."""
    python = {"vllm": options.vllm_python, "llama.cpp": options.llama_python}.get(side.split()[0], sys.executable)
    command = [python, __file__, "--only", side, "--keep", options.keep, "--shape", options.shape]
    command += ["--dtype", options.dtype, "--device", options.device, *(["--brief"] if options.brief else [])]
    print(f"measuring {side} ...", file=sys.stderr, flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode and (side.startswith("engine") or side == "limits"):
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    if done.returncode:
        print(f"{side} failed and is left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return {}
    # Libraries may print, too, even after the figures.
    line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith(MARK))
    print(f"  {line.removeprefix(MARK)}", file=sys.stderr, flush=True)
    return json.loads(line.removeprefix(MARK))


def measure_limits(options: argparse.Namespace) -> dict[str, Any]:
    """This machine's limits: bytes read and operations per second, with torch's number of threads."""
    import torch

    def best(work: Callable[[], Any], seconds: float = 1.5) -> float:
        work()
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    large = torch.ones(2**28 if options.shape != "XS" else 2**27)
    read = large.numel() * 4 / best(large.sum)
    del large
    a, b = torch.randn(2048, 4096), torch.randn(4096, 4096)
    work = 2 * 2048 * 4096 * 4096
    fp32 = work / best(lambda: a @ b.T)
    a, b = a.bfloat16(), b.bfloat16()
    bf16 = work / best(lambda: a @ b.T)
    ints = torch.randint(-9, 9, (2048, 4096), dtype=torch.int8), torch.randint(-9, 9, (4096, 4096), dtype=torch.int8)
    int8 = work / best(lambda: torch._int_mm(ints[0], ints[1].T))
    rates = {"fp32_gflops": fp32 / 1e9, "bf16_gflops": bf16 / 1e9, "int8_gops": int8 / 1e9}
    return {"read_gb_s": read / 1e9, **rates}


def image_of(seed: int) -> Any:
    """An image that differs from every other: coloured squares under a gradient."""
    import random

    from PIL import Image

    rng = random.Random(seed)
    squares = Image.new("L", (16, 16))
    squares.putdata([rng.randrange(256) for _ in range(256)])
    gradient = Image.linear_gradient("L").resize(IMAGE_PX)
    return Image.merge("RGB", (gradient, squares.resize(IMAGE_PX), gradient.rotate(180)))


def question_ids(number: int) -> list[int]:
    """A begin token, the image's slot (-200), and 63 words, of which the last ones are this question's own."""
    return [1, -200, *range(100, 100 + QUESTION_TOKENS - 3), 5000 + number, 9]


def measure_engine(options: argparse.Namespace, bits: int = 16, arithmetic: str = "exact") -> dict[str, Any]:
    """This package's engine."""
    import torch

    from llava.engine.engine import Engine
    from llava.engine.stream import Question
    from llava.image.geometry import plan_tiles
    from llava.image.source import load_image
    from llava.model.checkpoint import load_model
    from llava.prompt import Prompt
    from llava.sampling import Sampling

    shape = SHAPES[options.shape]
    loaded = load_model(checkpoint(options, "original"), device=options.device, dtype=options.dtype, bits=bits)
    engine = Engine(loaded, arithmetic=arithmetic)
    ready_s = time.time() - STARTED

    def ask(image_seed: int, number: int, new_tokens: int) -> Any:
        image = load_image(image_of(image_seed))
        plan = plan_tiles(image.size, loaded.spec.tiling)
        ids = question_ids(number)
        prompt = Prompt(tuple(ids), None, len(ids) - 1 + plan.num_positions)
        return engine.submit(Question(prompt, [image], [plan], Sampling(max_new_tokens=new_tokens)))

    prompt_tokens = ask(999, 0, 2).wait()[1].prompt_tokens  # warm
    pixels = torch.zeros(5, 3, 336, 336, dtype=loaded.model.dtype, device=loaded.model.device)
    vision, first, rate, again = [], [], [], []
    for i in range(shape.repeats):
        with torch.inference_mode():
            began = time.perf_counter()
            engine._runner._encode_tiles(pixels)
            vision.append(time.perf_counter() - began)
        result = ask(i, i, NEW_TOKENS).wait()[1]
        first.append(result.first_token_s)
        rate.append((NEW_TOKENS - 1) / (result.total_s - result.first_token_s))
        again.append(ask(i, 50 + i, 2).wait()[1].first_token_s)
    figures = {
        "ready_s": ready_s,
        "prompt_tokens": prompt_tokens,
        "vision_s": statistics.median(vision),
        "first_token_s": statistics.median(first),
        "tokens_per_s": statistics.median(rate),
        "again_s": statistics.median(again),
    }
    for count in shape.crowd:
        for kind in ("different", "same"):
            seeds = [100 * count + (i if kind == "different" else 77) for i in range(count)]
            began = time.perf_counter()
            streams = [ask(seed, 200 + i, shape.crowd_tokens) for i, seed in enumerate(seeds)]
            for stream in streams:
                stream.wait()
            figures[f"{count}_{kind}_tok_s"] = count * shape.crowd_tokens / (time.perf_counter() - began)
    if shape.has_gap:
        figures |= {"gap_s": measure_gap(ask), "budget_s": NUM_ARRIVING * engine.settings.stall_s}
    weights_gb = sum(each.nbytes for each in (*loaded.model.parameters(), *loaded.model.buffers())) / 1e9
    caches_gb = resident_gb([*engine._runner.cache.keys, *engine._runner.cache.values])
    figures["above_gb"] = peak_gb() - weights_gb - caches_gb
    engine.close()
    return {**figures, "peak_gb": peak_gb()}


def measure_gap(ask: Callable[[int, int, int], Any]) -> float:
    """The longest time between two tokens of an answer while NUM_ARRIVING new images arrive after its first tokens."""
    stream = ask(7000, 7000, NEW_TOKENS)
    arrived: list[Any] = []
    moments: list[float] = []
    for piece in stream:
        moments += [time.perf_counter()] * bool(piece.tokens)
        if len(moments) == 4 and not arrived:
            arrived = [ask(7001 + i, 7001 + i, 2) for i in range(NUM_ARRIVING)]
    for other in arrived:
        other.wait()
    return max(after - before for before, after in itertools.pairwise(moments))


def resident_gb(tensors: list[Any]) -> float:
    """How much of the tensors' memory has been written to; 0 where the system does not tell."""
    maps = Path("/proc/self/smaps")
    places = [(each.data_ptr(), each.data_ptr() + each.nbytes) for each in tensors]
    total = start = end = 0
    for line in maps.read_text().splitlines() if maps.is_file() else ():
        first, *rest = line.split()
        if first == "Rss:":
            overlap = sum(max(0, min(end, stop) - max(start, begin)) for begin, stop in places)
            total += min(overlap, 1024 * int(rest[0]))
        elif "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
    return total / 1e9


def measure_embedded(options: argparse.Namespace) -> dict[str, Any]:
    """The embedded model: see ``embedded.py``."""
    import embedded  # beside this file

    return embedded.measure()


def measure_transformers(options: argparse.Namespace) -> dict[str, Any]:
    """LlavaNextForConditionalGeneration with the same weights; many questions as one batch."""
    import torch
    from transformers import LlavaNextForConditionalGeneration

    from llava.image.geometry import Size, Tiling, plan_tiles
    from llava.image.pixels import ImageProcessor, make_pixels

    shape = SHAPES[options.shape]
    dtype = getattr(torch, options.dtype)
    model: Any = LlavaNextForConditionalGeneration.from_pretrained(
        checkpoint(options, "hf"), dtype=dtype, device_map=options.device
    ).eval()
    ready_s = time.time() - STARTED
    config = json.loads((checkpoint(options, "original") / "config.json").read_text())
    tiling = Tiling.from_config(config, tile_px=336, patch_px=14)
    plan = plan_tiles(Size(*IMAGE_PX), tiling)
    processor = ImageProcessor(size=336)

    def generate(asked: list[tuple[int, int]], new_tokens: int) -> None:
        rows = []
        for _, number in asked:
            ids = question_ids(number)
            slot = ids.index(-200)
            rows.append(ids[:slot] + [model.config.image_token_id] * plan.num_positions + ids[slot + 1 :])
        pixels = torch.stack([make_pixels(image_of(seed), plan, processor) for seed, _ in asked])
        model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.ones(len(rows), len(rows[0]), dtype=torch.long, device=model.device),
            pixel_values=pixels.to(model.device, dtype),
            image_sizes=torch.tensor([IMAGE_PX[::-1]] * len(rows)),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
        )

    def seconds(asked: list[tuple[int, int]], new_tokens: int) -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            generate(asked, new_tokens)
        return time.perf_counter() - began

    seconds([(999, 0)], 2)
    pixels = torch.zeros(1, 5, 3, 336, 336, dtype=dtype, device=model.device)
    vision, first, rate = [], [], []
    for i in range(shape.repeats):
        with torch.inference_mode():
            began = time.perf_counter()
            model.get_image_features(pixels, torch.tensor([IMAGE_PX[::-1]]))
            vision.append(time.perf_counter() - began)
        first.append(seconds([(i, i)], 1))
        rate.append((NEW_TOKENS - 1) / (seconds([(i, i)], NEW_TOKENS) - first[-1]))
    figures = {
        "ready_s": ready_s,
        "prompt_tokens": plan.num_positions + QUESTION_TOKENS,
        "vision_s": statistics.median(vision),
        "first_token_s": statistics.median(first),
        "tokens_per_s": statistics.median(rate),
        "again_s": statistics.median(first),  # it has no prefix cache
    }
    for count in shape.crowd:
        if count > 8:
            continue  # a batch of 32 prompts of 2208 tokens does not fit
        took = seconds([(100 * count + i, 200 + i) for i in range(count)], shape.crowd_tokens)
        figures[f"{count}_different_tok_s"] = figures[f"{count}_same_tok_s"] = count * shape.crowd_tokens / took
    return {**figures, "peak_gb": peak_gb()}


def measure_vllm(options: argparse.Namespace) -> dict[str, Any]:
    """vLLM's offline engine on the llava-hf layout."""
    from vllm import LLM, SamplingParams

    shape = SHAPES[options.shape]
    llm = LLM(
        str(checkpoint(options, "hf")),
        dtype=options.dtype,
        max_model_len=4096,
        max_num_seqs=64,
        disable_log_stats=False,
    )
    ready_s = time.time() - STARTED

    def ask(asked: list[tuple[int, int]], new_tokens: int) -> list[Any]:
        prompts = []
        for seed, number in asked:
            ids = question_ids(number)
            ids[ids.index(-200)] = llm.get_tokenizer().convert_tokens_to_ids("<image>")
            prompts.append({"prompt_token_ids": ids, "multi_modal_data": {"image": image_of(seed)}})
        settings = SamplingParams(temperature=0, max_tokens=new_tokens, min_tokens=new_tokens, ignore_eos=True)
        return llm.generate(prompts, settings, use_tqdm=False)

    def seconds(asked: list[tuple[int, int]], new_tokens: int) -> float:
        began = time.perf_counter()
        ask(asked, new_tokens)
        return time.perf_counter() - began

    prompt_tokens = len(ask([(999, 0)], 2)[0].prompt_token_ids)
    first, rate, again = [], [], []
    for i in range(shape.repeats):
        first.append(seconds([(i, i)], 1))
        known = seconds([(i, i)], 1)
        rate.append((NEW_TOKENS - 1) / (seconds([(i, i)], NEW_TOKENS) - known))
        again.append(seconds([(i, 50 + i)], 1))
    figures = {
        "ready_s": ready_s,
        "prompt_tokens": prompt_tokens,
        "first_token_s": statistics.median(first),
        "tokens_per_s": statistics.median(rate),
        "again_s": statistics.median(again),
    }
    for count in shape.crowd:
        for kind in ("different", "same"):
            seeds = [100 * count + (i if kind == "different" else 77) for i in range(count)]
            took = seconds([(seed, 200 + i) for i, seed in enumerate(seeds)], shape.crowd_tokens)
            figures[f"{count}_{kind}_tok_s"] = count * shape.crowd_tokens / took
    return figures


def measure_llama_cpp(options: argparse.Namespace, kind: str = "Q8_0") -> dict[str, Any]:
    """llama.cpp on a decoder of the same shape with random weights; it gets words in place of the image's positions."""
    from llama_cpp import Llama

    path = Path(options.keep) / f"{options.shape}-{kind}.gguf"
    if not path.is_file():
        write_gguf(options, path, kind)
    began = time.time()
    llama = Llama(str(path), n_ctx=4096, n_threads=os.cpu_count(), n_threads_batch=os.cpu_count(), verbose=False)
    ready_s = time.time() - began
    prompt_tokens = 2144 + QUESTION_TOKENS
    first, rate = [], []
    for i in range(SHAPES[options.shape].repeats):
        llama.reset()
        began = time.perf_counter()
        llama.eval([1, *(5 + (7 * k + i) % 20000 for k in range(prompt_tokens - 1))])
        first.append(time.perf_counter() - began)
        began = time.perf_counter()
        for token in range(NEW_TOKENS - 1):
            llama.eval([100 + token])
        rate.append((NEW_TOKENS - 1) / (time.perf_counter() - began))
    figures = {"ready_s": ready_s, "first_token_s": statistics.median(first), "tokens_per_s": statistics.median(rate)}
    return {**figures, "prompt_tokens": prompt_tokens, "peak_gb": peak_gb()}


def write_gguf(options: argparse.Namespace, path: Path, kind: str) -> None:
    """Writes a Llama with random weights in llama.cpp's format."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    shape = SHAPES[options.shape].decoder
    width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    heads, kv_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
    kv_width = width // heads * kv_heads
    writer = GGUFWriter(str(path) + ".partial", "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"w{i}" for i in range(VOCABULARY)])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([1] * VOCABULARY)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    quantization = GGMLQuantizationType[kind]
    rng = np.random.default_rng(0)

    def add(name: str, rows: int, columns: int, of: Any = quantization) -> None:
        weight = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)
        writer.add_tensor(name, quantize(weight, of), raw_dtype=of)

    add("token_embd.weight", VOCABULARY, width, GGMLQuantizationType.Q8_0)
    add("output.weight", VOCABULARY, width, GGMLQuantizationType.Q8_0)
    writer.add_tensor("output_norm.weight", np.ones(width, dtype=np.float32))
    for i in range(layers):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(width, dtype=np.float32))
        for name, rows, columns in (
            *(("attn_q", width, width), ("attn_k", kv_width, width), ("attn_v", kv_width, width)),
            *(("attn_output", width, width), ("ffn_gate", inner, width)),
            *(("ffn_up", inner, width), ("ffn_down", width, inner)),
        ):
            add(f"blk.{i}.{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    Path(str(path) + ".partial").replace(path)


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "limits": measure_limits,
    "engine": measure_engine,
    "engine int8": partial(measure_engine, bits=8),
    "engine int4": partial(measure_engine, bits=4),
    "engine int8 arithmetic": partial(measure_engine, bits=8, arithmetic="int8"),
    "embedded": measure_embedded,
    "transformers": measure_transformers,
    "vllm": measure_vllm,
    "llama.cpp Q8_0": measure_llama_cpp,
    "llama.cpp Q4_0": partial(measure_llama_cpp, kind="Q4_0"),
}


def floors(options: argparse.Namespace, limits: dict[str, Any], prompt_tokens: int) -> dict[str, float]:
    """The best figures that the limits allow: arithmetic at the better of the fp32 and bf16 rates, and full bandwidth.

    They are computed for unquantized weights of ``options.dtype``: a side with fewer bits may exceed them.
    """
    shape = SHAPES[options.shape]
    tower, decoder = shape.tower, shape.decoder
    width, inner, layers = decoder["hidden_size"], decoder["intermediate_size"], decoder["num_hidden_layers"]
    kv_width = width // decoder["num_attention_heads"] * decoder["num_key_value_heads"]
    per_layer = width * (2 * width + 2 * kv_width + 3 * inner)
    blocks, side = tower["num_hidden_layers"] - 1, tower["hidden_size"]
    per_block = side * (4 * side + 2 * tower["intermediate_size"])
    vision = 5 * 2 * blocks * (577 * per_block + 2 * 577 * 577 * side) + 5 * 2 * 576 * (side * width + width * width)
    prefill = 2 * layers * (prompt_tokens * per_layer + prompt_tokens * prompt_tokens * width)
    size = 4 if options.dtype == "float32" else 2
    read = size * (layers * per_layer + VOCABULARY * width + 2 * layers * kv_width * prompt_tokens)
    rate = 1e9 * max(limits["fp32_gflops"], limits["bf16_gflops"])
    int4_read = layers * per_layer * 0.5625 + VOCABULARY * width * 1.0625 + 4 * layers * kv_width * prompt_tokens
    return {
        "int4_tokens_per_s": 1e9 * limits["read_gb_s"] / int4_read,
        "vision_s": vision / rate,
        "first_token_s": (vision + prefill) / rate,
        "tokens_per_s": 1e9 * limits["read_gb_s"] / read,
    }


def report(options: argparse.Namespace, limits: dict[str, Any], sides: dict[str, dict[str, Any]]) -> None:
    """Prints the limits and the table, and with ``--json`` writes them to a file."""
    ours = next(figures for figures in sides.values() if "prompt_tokens" in figures)
    floor = floors(options, limits, ours["prompt_tokens"])
    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}; shape {options.shape}, "
        f"{options.dtype}, {options.device}; {ours['prompt_tokens']} prompt tokens, {NEW_TOKENS} new"
    )
    print(
        f"limits: memory read {limits['read_gb_s']:.1f} GB/s, fp32 {limits['fp32_gflops']:.0f} and bf16 "
        f"{limits['bf16_gflops']:.0f} GFLOPS, "
        f"int8 {limits['int8_gops']:.0f} GOPS"
    )
    names = {
        "ready_s": "start to ready, s",
        "vision_s": "image encoded, s",
        "first_token_s": "first token, s",
        "tokens_per_s": "decode, tokens/s",
        "again_s": "same image again, first token, s",
        **{
            f"{count}_{kind}_tok_s": f"{count} questions, {kind} image{'s' * (kind == 'different')}, tokens/s"
            for count in SHAPES[options.shape].crowd
            for kind in ("different", "same")
        },
        "peak_gb": "peak memory, GB",
        "above_gb": "above weights and KV cache, GB",
        "gap_s": "longest gap while images arrive, s",
    }
    shown = [side for side in sides if side != "embedded"]
    print(f"{'':42}{'limit':>14}" + "".join(f"{side:>24}" for side in shown))
    for key, name in names.items():
        limit = floor.get(key)
        line = f"{name:42}{'' if limit is None else f'{limit:.3g}':>14}"
        for figures in (sides[side] for side in shown):
            value = figures.get(key)
            text = "-" if value is None else f"{value:.3g}"
            if value is not None and limit is not None:
                share = limit / value if key.endswith("_s") and not key.endswith("per_s") else value / limit
                text += f" ({share:.0%})"
            line += f"{text:>24}"
        print(line)
    for name, value in sides.get("embedded", {}).items():
        print(f"{'embedded model, ' + name.replace('_', ' '):42}{'':14}{value:>24.3g}")
    if options.device == "cpu":
        print_goals(options.shape, {**sides, "limit": floor})
    if options.json:
        options.json.write_text(json.dumps({"limits": limits, "floors": floor, "sides": sides}, indent=1) + "\n")


def peak_gb() -> float:
    """The peak resident memory of this process, including pages mapped from files."""
    import resource

    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, getrusage's maximum includes the parent's memory at the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / (1e6 / 1.024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6 / 1.024)


if __name__ == "__main__":
    sys.exit(main())
