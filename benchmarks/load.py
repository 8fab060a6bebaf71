"""Loading a checkpoint, up to its first use: seconds and peak memory, compared with Transformers on the same weights.

Makes a LLaVA-NeXT of 2.6 GB (CLIP ViT-L/14-336 and a Llama of 20 layers of 2048, random bfloat16 weights) in the
original layout, converts it with ``llava convert`` to llava-hf's, and loads each in processes of its own, in turn, from
a warm page cache. Importing is not counted: memory is what loading adds to a process that has imported everything. Both
leave the weights in their files until they are needed, so the relevant time is that until one tile has gone through the
tower and one line of text through the decoder. By then this package has also checked that no weight is NaN.

    python benchmarks/load.py [--repeats 3] [--folder KEEP_IT_HERE] [--shard-gb 5]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 20,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}
SIDES = ("llava", "transformers")


def main() -> int:
    """Makes the checkpoint, measures both sides and prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where the checkpoints are kept and reused (default: a temporary folder)")
    parser.add_argument("--shard-gb", type=float, default=5.0, help="files of the checkpoint are at most this large")
    parser.add_argument("--only", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, Path(options.folder))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        if not (folder / "llava/config.json").is_file():
            make_checkpoint(folder / "llava", int(options.shard_gb * 1e9))
        if not (folder / "transformers/config.json").is_file():
            run(["-m", "llava", "convert", str(folder / "llava"), str(folder / "transformers"), "--to", "hf"])
        results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(options.repeats):
            for side in SIDES:
                results[side].append(json.loads(run([__file__, "--only", side, "--folder", str(folder)])))
        report(folder, results)
    return 0


def run(arguments: list[str]) -> str:
    """The last line of output of a new Python process. Exits with its standard error if it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip().split("\n")[-1]


def make_checkpoint(folder: Path, max_shard_bytes: int) -> None:
    """Writes a LLaVA-NeXT with random weights in the original layout."""
    import torch

    from llava.image.geometry import RELEASED_PINPOINTS
    from llava.image.pixels import ImageProcessor
    from llava.model.checkpoint import load_model, save_checkpoint
    from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM
    from llava.towers import KNOWN_TOWERS

    name = "openai/clip-vit-large-patch14-336"
    config = LlavaConfig(
        **SHAPE,
        mm_vision_tower=name,
        mm_vision_config=KNOWN_TOWERS[name],
        mm_hidden_size=1024,
        mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=-2,
        mm_patch_merge_type="spatial_unpad",
        image_aspect_ratio="anyres",
        image_grid_pinpoints=[list(pinpoint) for pinpoint in RELEASED_PINPOINTS],
        mm_use_im_start_end=False,
        use_mm_proj=True,
    )
    torch.set_default_dtype(torch.bfloat16)
    model = LlavaLlamaForCausalLM(config)
    processor = ImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    save_checkpoint(model, load_model("embedded").tokenizer, processor, folder, max_shard_bytes=max_shard_bytes)


def resident_bytes() -> int:
    """The peak resident memory of this process so far. Linux counts in KiB, macOS in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def private_bytes() -> int:
    """The anonymous memory of this process, without mapped files, whose pages can be dropped; 0 if unknown."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


def measure(side: str, folder: Path) -> dict[str, float]:
    """Loads once: the seconds, and the bytes of memory."""
    import torch
    from transformers import AutoProcessor, LlavaNextForConditionalGeneration

    from llava.model.checkpoint import load_model

    before, private_before = resident_bytes(), private_bytes()
    began = time.perf_counter()
    if side == "llava":
        model = load_model(folder / side, device="cpu", dtype="bfloat16").model
        tower = model.get_vision_tower()
    else:
        model = LlavaNextForConditionalGeneration.from_pretrained(folder / side, dtype=torch.bfloat16).eval()
        AutoProcessor.from_pretrained(folder / side)
        tower = model.model.vision_tower
    seconds = time.perf_counter() - began
    with torch.inference_mode():
        tower(torch.zeros(1, 3, 336, 336, dtype=torch.bfloat16))
        model(input_ids=torch.arange(1, 17)[None])
    first_s = time.perf_counter() - began
    held = sum(parameter.nbytes for parameter in model.parameters())
    return {
        "seconds": seconds,
        "first_s": first_s,
        "peak_bytes": resident_bytes() - before,
        "private_bytes": private_bytes() - private_before,
        "model_bytes": held,
    }


def report(folder: Path, results: dict[str, list[dict[str, float]]]) -> None:
    """Prints the table, and the checkpoint and machine that it was measured on."""
    import torch
    import transformers

    files = sorted((folder / "llava").glob("*.safetensors"))
    print(
        f"{sum(file.stat().st_size for file in files) / 1e9:.2f} GB in {len(files)} files, bfloat16, cpu, "
        f"median of {len(results['llava'])}\n{platform.machine()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}, transformers {transformers.__version__}\n"
    )
    print(f"{'':24}{'llava':>12}{'transformers':>14}")
    for title, key, unit in (
        ("load, s", "seconds", 1.0),
        ("to the first use, s", "first_s", 1.0),
        ("model, GB", "model_bytes", 1e9),
        ("peak resident, GB", "peak_bytes", 1e9),
        ("private at the end, GB", "private_bytes", 1e9),
    ):
        cells = [statistics.median(result[key] for result in results[side]) / unit for side in SIDES]
        print(f"{title:24}{cells[0]:>12.2f}{cells[1]:>14.2f}")


if __name__ == "__main__":
    sys.exit(main())
