"""The engine with the weights of a 7B model, random and made on the device, beside Transformers' ``generate`` on them.

Memory bandwidth, measured in the same run; decoding of 1, 8, 32 and 64 requests with an image each; the first token of
an image of 1000 x 667 px and of the same image again; peak memory. The table has the goals beside the figures. A part
that fails is reported, and the others go on; the exit code is the number of failed parts.

    python benchmarks/gpu_engine.py [--device cuda] [--tiny] [--json FILE]
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from engine import IMAGE_PX, image_of, question_ids  # beside this file
from random_model import make_model  # beside this file
from transformers.generation.streamers import BaseStreamer

NEW_TOKENS = 96

# Goals of an H200-class card; "share" is of the memory bandwidth that the same run measured.
GOALS = {
    "share": ("decode of 1, share of memory bandwidth", ">=", 0.75),
    "32_tokens_per_s": ("decode of 32, tokens/s", ">=", 2000.0),
    "first_token_s": ("first token of an image, s", "<=", 0.070),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of a model and how much is measured."""

    tower: dict[str, int]
    decoder: dict[str, int]
    batches: tuple[int, ...]
    new_tokens: int
    repeats: int


FULL = Size(
    {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 32},
    (1, 8, 32, 64),
    NEW_TOKENS,
    5,
)
TINY = Size(
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"num_key_value_heads": 2},
    (1, 2),
    6,
    1,
)


def main() -> int:
    """Measures all parts, prints the table and returns the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to see that it works")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    size, device = TINY if options.tiny else FULL, torch.device(options.device)
    figures: dict[str, Any] = {"device": _name(device)}
    failures: dict[str, str] = {}

    def part(name: str, measure: Callable[[], dict[str, float]]) -> None:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            figures.update(measure())
        except Exception as error:  # each part stands for itself
            traceback.print_exc()
            failures[name] = f"{type(error).__name__}: {error}"[:300]

    part("memory bandwidth", lambda: {"read_gb_s": measure_bandwidth(device, 2**20 if options.tiny else 2**31)})
    began = time.perf_counter()
    loaded = make_model(size.tower, size.decoder, device)
    _synchronize(device)
    figures["made_s"] = time.perf_counter() - began
    measure_engine(loaded, size, part)
    if "1_tokens_per_s" in figures and "read_gb_s" in figures:
        moved = bytes_per_token(loaded, int(figures["prompt_tokens"]) + size.new_tokens // 2)
        figures["share"] = moved * figures["1_tokens_per_s"] / 1e9 / figures["read_gb_s"]
    if device.type == "cuda":
        figures["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    part("Transformers", lambda: measure_generate(loaded, size))
    figures["failures"] = failures
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return len(failures)


def measure_engine(loaded: Any, size: Size, part: Callable[[str, Callable[[], dict[str, float]]], None]) -> None:
    """Measures the parts that one engine answers, whose memory is free again afterwards."""
    engine = make_engine(loaded, size)
    try:
        part("first token", functools.partial(measure_first_token, engine, size))
        for batch in size.batches:
            part(f"decode of {batch}", functools.partial(measure_decode, engine, size, batch))
    finally:
        engine.close()


def make_engine(loaded: Any, size: Size) -> Any:
    """An engine whose KV cache holds the largest batch, or 70 % of what is free on the GPU."""
    from llava.engine.engine import Engine

    device, decoder = loaded.model.device, size.decoder
    if device.type != "cuda":
        return Engine(loaded)
    per_token = 2 * 2 * decoder["hidden_size"] * decoder["num_hidden_layers"]
    wanted = max(size.batches) * (2300 + size.new_tokens) * per_token
    free, _ = torch.cuda.mem_get_info(device)
    return Engine(loaded, memory_bytes=int(min(wanted, 0.7 * free)))


def measure_bandwidth(device: torch.device, num_bytes: int) -> float:
    """GB read and written per second by the fastest of some copies."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        _synchronize(device)
        began = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        times.append(time.perf_counter() - began)
    return 2 * num_bytes / min(times) / 1e9


def bytes_per_token(loaded: Any, depth: int) -> int:
    """What one decoding step of one request at ``depth`` reads at least: decoder, head, keys and values."""
    model, config = loaded.model, loaded.model.config
    layers = model.get_model().layers
    weights = sum(each.nbytes for each in (*layers.parameters(), model.lm_head.weight))
    head_dim = config.hidden_size // config.num_attention_heads
    return weights + 2 * 2 * len(layers) * config.num_key_value_heads * head_dim * depth


def submit(engine: Any, seed: int, number: int, new_tokens: int) -> Any:
    """The stream of a question about an image of its own, for each seed."""
    from llava.engine.stream import Question
    from llava.image.geometry import plan_tiles
    from llava.image.source import load_image
    from llava.prompt import Prompt
    from llava.sampling import Sampling

    image = load_image(image_of(seed))
    plan = plan_tiles(image.size, engine.loaded.spec.tiling)
    ids = question_ids(number)
    prompt = Prompt(tuple(ids), None, len(ids) - 1 + plan.num_positions)
    return engine.submit(Question(prompt, [image], [plan], Sampling(max_new_tokens=new_tokens)))


def measure_first_token(engine: Any, size: Size) -> dict[str, float]:
    """Medians of the first token of new images and of known ones, after a first one that is not counted."""
    prompt_tokens = submit(engine, 999, 0, 4).wait()[1].prompt_tokens
    first, again = [], []
    for i in range(size.repeats):
        first.append(submit(engine, i, i, 2).wait()[1].first_token_s)
        again.append(submit(engine, i, 50 + i, 2).wait()[1].first_token_s)
    return {
        "prompt_tokens": prompt_tokens,
        "first_token_s": statistics.median(first),
        "again_s": statistics.median(again),
    }


def measure_decode(engine: Any, size: Size, batch: int) -> dict[str, float]:
    """Tokens a second between the last request's first token and the first request's end."""
    times: list[list[float]] = [[] for _ in range(batch)]

    def read(stream: Any, into: list[float]) -> None:
        for piece in stream:
            into.extend([time.perf_counter()] * len(piece.tokens))

    streams = [
        submit(engine, 1000 * batch + i, 200 + i, size.new_tokens * (2 if batch > 1 else 1)) for i in range(batch)
    ]
    readers = [threading.Thread(target=read, args=pair) for pair in zip(streams, times, strict=True)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    if not all(times):
        raise RuntimeError(f"{sum(not each for each in times)} of {batch} requests got no token")
    began, ended = max(each[0] for each in times), min(each[-1] for each in times)
    if ended <= began:
        raise RuntimeError(f"the {batch} requests never decoded together: the KV cache does not hold them")
    together = sum(began < moment <= ended for each in times for moment in each)
    return {f"{batch}_tokens_per_s": together / (ended - began)}


def measure_generate(loaded: Any, size: Size) -> dict[str, float]:
    """The same weights through Transformers' ``generate``: first token and tokens a second of one request."""
    from llava.image.geometry import plan_tiles
    from llava.image.pixels import make_pixels
    from llava.image.source import load_image

    model, device = loaded.model, loaded.model.device
    image = load_image(image_of(0))
    plan = plan_tiles(image.size, loaded.spec.tiling)

    @torch.inference_mode()
    def moments(new_tokens: int) -> list[float]:
        """Seconds from the beginning until each token."""
        _synchronize(device)
        clock = TokenClock()
        pixels = make_pixels(image.image, plan, loaded.image_processor).to(device, model.dtype)
        ids = torch.tensor([question_ids(0)], device=device)
        options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False}
        model.generate(ids, images=[pixels], image_sizes=[IMAGE_PX], streamer=clock, **options)
        return clock.moments[-new_tokens:]  # the prompt comes before them

    moments(2)
    first = statistics.median(moments(1)[0] for _ in range(size.repeats))
    # Of one call, because the difference of two is noise where an answer takes milliseconds.
    began, *_, ended = moments(size.new_tokens)
    return {"transformers_first_token_s": first, "transformers_tokens_per_s": (size.new_tokens - 1) / (ended - began)}


class TokenClock(BaseStreamer):
    """A streamer that notes after how many seconds each piece came; the host has it then, so the device is done."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self._began = time.perf_counter()

    def put(self, value: torch.Tensor) -> None:
        """Notes the moment of a piece."""
        self.moments.append(time.perf_counter() - self._began)

    def end(self) -> None:
        """Nothing is left to be done."""


def report(figures: dict[str, Any]) -> None:
    """Prints every figure, with its goal where there is one."""
    print(f"{figures['device']}, bfloat16, an image of {IMAGE_PX[0]} x {IMAGE_PX[1]} px with each question")
    names = {key: name for key, (name, _, _) in GOALS.items()}
    for key, value in figures.items():
        if not isinstance(value, (int, float)):
            continue
        goal = ""
        if key in GOALS:
            _, sign, limit = GOALS[key]
            is_met = value >= limit if sign == ">=" else value <= limit
            goal = f"goal {sign} {limit:g}: {'met' if is_met else 'MISSED'}"
        print(f"{names.get(key, key.replace('_', ' ')):45}{value:12.4g}   {goal}".rstrip())
    for name, failure in figures["failures"].items():
        print(f"{name:45}      FAILED   {failure}")


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
