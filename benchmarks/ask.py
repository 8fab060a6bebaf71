"""One question about one image: load time, time to first token, tokens per second, peak memory.

Compares this package with Transformers' LlavaNextForConditionalGeneration on the same weights, pixels and prompt, in
the same run. Each is measured in a process of its own, so that peak memory is not shared.

    python benchmarks/ask.py [--model FOLDER] [--image IMAGE] [--new-tokens 64] [--dtype float32]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UPS = 1
REPEATS = 5


def main() -> int:
    """Measures both and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="a checkpoint folder (default: %(default)s)")
    parser.add_argument("--image", help="an image (default: a grey one of 1000 x 667 px)")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("llava", "transformers"), help=argparse.SUPPRESS)
    parser.add_argument("--hf-folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure = measure_llava if options.only == "llava" else measure_transformers
        print(json.dumps(measure(options)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        options.hf_folder = folder
        write_hf_checkpoint(options, Path(folder))
        report(options, {name: run_alone(name, options) for name in ("llava", "transformers")})
    return 0


def run_alone(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The measurements of one side, from a fresh process."""
    command = [sys.executable, __file__, "--only", name, "--hf-folder", options.hf_folder, "--device", options.device]
    command += ["--new-tokens", str(options.new_tokens), "--dtype", options.dtype]
    command += ["--model", options.model]
    command += ["--image", options.image] if options.image else []
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def load_ours(options: argparse.Namespace) -> Any:
    """The checkpoint as this package loads it."""
    from llava.model.checkpoint import load_model

    return load_model(options.model, device=options.device, dtype=options.dtype)


def make_inputs(loaded: Any, image: str | None) -> tuple[Any, Any, Any, int]:
    """Prompt ids, pixels, image size (w, h) and image positions, for both sides."""
    import torch
    from PIL import Image

    from llava.answer import write_chat
    from llava.image.geometry import plan_tiles
    from llava.image.pixels import make_pixels
    from llava.image.source import load_image
    from llava.prompt import render

    shown = load_image(image or Image.new("RGB", (1000, 667), "grey"))
    conversation = write_chat(loaded, [("What is in the image?", 1, None)])
    plan = plan_tiles(shown.size, loaded.spec.tiling)
    prompt = render(conversation, loaded.tokenizer, [plan.num_positions], limit_tokens=loaded.context_tokens)
    pixels = make_pixels(shown.image, plan, loaded.image_processor)
    device, dtype = loaded.model.device, loaded.model.dtype
    return torch.tensor([prompt.input_ids], device=device), pixels.to(device, dtype), shown.size, plan.num_positions


def measure_llava(options: argparse.Namespace) -> dict[str, Any]:
    """This package's own numbers."""
    import llava.model.checkpoint  # noqa: F401 (importing is not loading)

    began = time.perf_counter()
    loaded = load_ours(options)
    load_s = time.perf_counter() - began
    input_ids, pixels, size, num_positions = make_inputs(loaded, options.image)

    def generate(num: int) -> list[int]:
        return loaded.model.generate(input_ids, images=[pixels], image_sizes=[tuple(size)], **exactly(num))[0].tolist()

    result = time_generate(generate, options.new_tokens)
    return {**result, "load_s": load_s, "prompt_tokens": input_ids.shape[1] - 1 + num_positions}


def measure_transformers(options: argparse.Namespace) -> dict[str, Any]:
    """The same weights, pixels and prompt in LlavaNextForConditionalGeneration."""
    import torch
    from transformers import AutoTokenizer, LlavaNextForConditionalGeneration

    inputs = torch.load(Path(options.hf_folder) / "inputs.pt", weights_only=True)
    began = time.perf_counter()
    model = LlavaNextForConditionalGeneration.from_pretrained(
        options.hf_folder, dtype=getattr(torch, options.dtype), device_map=options.device
    ).eval()
    AutoTokenizer.from_pretrained(options.hf_folder)  # ours is loaded with the model
    load_s = time.perf_counter() - began
    inputs = {name: tensor.to(options.device) for name, tensor in inputs.items()}
    prompt_tokens = inputs["input_ids"].shape[1]

    def generate(num: int) -> list[int]:
        return model.generate(**inputs, **exactly(num))[0, prompt_tokens:].tolist()

    return {**time_generate(generate, options.new_tokens), "load_s": load_s, "prompt_tokens": prompt_tokens}


def exactly(num: int) -> dict[str, Any]:
    """Arguments for a greedy ``generate`` of exactly ``num`` tokens, even if the model would end before."""
    return {"max_new_tokens": num, "min_new_tokens": num, "do_sample": False, "use_cache": True}


def time_generate(generate: Callable[[int], list[int]], num: int) -> dict[str, Any]:
    """Medians over REPEATS of the seconds to the first token and the tokens per second after it; peak memory; ids."""
    import torch

    first, rest = [], []
    with torch.inference_mode():
        for _ in range(WARM_UPS):
            generate(2)
        for _ in range(REPEATS):
            began = time.perf_counter()
            generate(1)
            first.append(time.perf_counter() - began)
            began = time.perf_counter()
            ids = generate(num)
            rest.append((num - 1) / (time.perf_counter() - began - first[-1]))
    return {
        "first_token_s": statistics.median(first),
        "tokens_per_s": statistics.median(rest),
        "peak_mb": peak_mb(),
        "ids": ids,
    }


def peak_mb() -> float:
    """The peak memory of this process in MB: the GPU's if one was used, else resident memory."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    import resource

    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3 / 1.024)


def write_hf_checkpoint(options: argparse.Namespace, folder: Path) -> None:
    """Writes the weights, in the layout that LlavaNextForConditionalGeneration reads, and the inputs to ``folder``."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    loaded = load_ours(options)
    input_ids, pixels, size, num_positions = make_inputs(loaded, options.image)
    model, spec = loaded.model, loaded.spec
    if spec.family != "llama" or spec.tiling.aspect != "anyres" or spec.tiling.merge != "spatial_unpad":
        raise SystemExit("The comparison needs a LLaVA-NeXT checkpoint on Llama: anyres with spatial_unpad.")
    text = {key: value for key, value in model.config.to_dict().items() if not key.startswith("mm_")}
    image_token_id = model.config.vocab_size
    config = LlavaNextConfig(
        text_config=LlamaConfig(**{**text, "model_type": "llama", "vocab_size": image_token_id + 1}),
        vision_config=CLIPVisionConfig(**model.get_vision_tower().config.to_dict()),
        image_token_index=image_token_id,
        image_grid_pinpoints=[[height, width] for width, height in spec.tiling.pinpoints],
        vision_feature_layer=spec.select_layer,
        image_seq_length=(spec.tiling.tile_px // spec.tiling.patch_px) ** 2,
    )
    twin = LlavaNextForConditionalGeneration(config).to(model.dtype)
    weights = {rename(name): tensor for name, tensor in model.state_dict().items()}
    # One more row, for the image token, whose embedding is replaced before it is used.
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.cat([weights[name], torch.zeros_like(weights[name][:1])])
    absent, foreign = twin.load_state_dict(weights, strict=False)
    if foreign or [name for name in absent if "position_ids" not in name]:
        raise SystemExit(f"The weights do not fit: {absent + foreign}")
    # The extra row of the head must never win: its logit is always 0.
    twin.generation_config.suppress_tokens = [image_token_id]
    twin.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    ids = [n for id_ in input_ids[0].tolist() for n in ([image_token_id] * num_positions if id_ < 0 else [id_])]
    torch.save(
        {
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
            "pixel_values": pixels[None].cpu(),
            "image_sizes": torch.tensor([[size[1], size[0]]]),
        },
        folder / "inputs.pt",
    )


def rename(name: str) -> str:
    """A tensor's name in Transformers' LlavaNext since version 5.6."""
    for old, new in (
        ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
        ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
        ("model.image_newline", "model.image_newline"),
        ("model.", "model.language_model."),
    ):
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def report(options: argparse.Namespace, results: dict[str, dict[str, Any]]) -> None:
    """Prints the table, and the model and machine that it was measured on."""
    import torch
    import transformers

    ours, theirs = results["llava"], results["transformers"]
    print(
        f"{options.model}, {options.dtype}, {options.device}, batch 1, "
        f"{ours['prompt_tokens']} prompt tokens, {options.new_tokens} new tokens, median of {REPEATS}\n"
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, transformers {transformers.__version__}\n"
    )
    print(f"{'':24}{'llava':>12}{'transformers':>14}")
    for title, key in (
        ("load, s", "load_s"),
        ("first token, s", "first_token_s"),
        ("tokens per second", "tokens_per_s"),
        ("peak memory, MB", "peak_mb"),
    ):
        print(f"{title:24}{ours[key]:>12.2f}{theirs[key]:>14.2f}")
    same = next((i for i, (a, b) in enumerate(zip(ours["ids"], theirs["ids"], strict=True)) if a != b), None)
    print(f"{'same greedy tokens':24}{'all' if same is None else f'first {same}':>12}")


if __name__ == "__main__":
    sys.exit(main())
