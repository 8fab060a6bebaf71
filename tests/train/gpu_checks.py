"""What only a GPU can show of training, each beside the same on the CPU: losses, dtypes, scaler, attention, memory.

Prints one line of JSON: what was measured, and ``passed``. A tiny checkpoint with random weights is made for it.

    python -m tests.train.gpu_checks CHECK [--device cpu]

``--device cpu`` runs the check itself on a CPU, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llava.image.pixels import ImageProcessor
from llava.model.checkpoint import load_model
from llava.train import run as training
from llava.train.recipe_file import read_recipe
from llava.train.report.throughput import find_peak
from llava.train.trainer import LLaVATrainer
from tests.train.tiny_stage import read_losses, write_recipe

STEPS = 6
ALL_PARTS = ["vision_tower", "projector", "image_newline", "language_model"]


def train(folder: Path, name: str, device: str, **settings: Any) -> dict[str, Any]:
    """Losses and gradient norms of a run on that device, and what its trainer was at the end."""
    seen: dict[str, Any] = {}

    class Watched(LLaVATrainer):
        def train(self, *arguments: Any, **named: Any) -> Any:
            result = super().train(*arguments, **named)
            parameters = list(self.model.named_parameters())
            seen["device"] = parameters[0][1].device.type
            seen["trained_dtypes"] = sorted({str(each.dtype) for _, each in parameters if each.requires_grad})
            seen["frozen_dtypes"] = sorted({str(each.dtype) for _, each in parameters if not each.requires_grad})
            seen["scale"] = None if self.accelerator.scaler is None else self.accelerator.scaler.get_scale()
            seen["optimizer"] = type(self.optimizer.optimizer).__name__
            seen["is_fused"] = bool(self.optimizer.param_groups[0].get("fused"))
            return result

    trainer = {**settings.pop("trainer", {}), **({"use_cpu": True} if device == "cpu" else {})}
    recipe = write_recipe(folder / "start-and-data", steps=STEPS, trainer=trainer, **settings)
    setattr(training, "LLaVATrainer", Watched)  # noqa: B010
    try:
        training.run(read_recipe(recipe), folder / name, workers=0)
    finally:
        setattr(training, "LLaVATrainer", LLaVATrainer)  # noqa: B010
    rows = read_losses(folder / name)
    return {"losses": [row[1] for row in rows], "norms": [row[2] for row in rows], **seen}


def compare(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest relative difference of losses."""
    pairs = zip(one["losses"], other["losses"], strict=True)
    return max(abs(a - b) / max(abs(b), 1e-9) for a, b in pairs)


def check_precision(folder: Path, device: str, precision: str, limit: float, **settings: Any) -> dict[str, Any]:
    """Training in that precision beside float32 on the CPU."""
    settings = {"train": ["projector", "language_model"], **settings}
    reference = train(folder, "reference", "cpu", precision="float32", **settings)
    ours = train(folder, "ours", device, precision=precision, **settings)
    difference = compare(ours, reference)
    is_right = difference < limit and ours["trained_dtypes"] == ["torch.float32"] and ours["device"] == device
    return {**ours, "reference": reference["losses"], "difference": difference, "passed": is_right}


def check_float32(folder: Path, device: str) -> dict[str, Any]:
    torch.backends.cudnn.allow_tf32 = False  # the tower's first layer is a convolution
    return check_precision(folder, device, "float32", 1e-4, train=ALL_PARTS)


def check_bfloat16(folder: Path, device: str) -> dict[str, Any]:
    return check_precision(folder, device, "bfloat16", 2e-2)


def check_float16(folder: Path, device: str) -> dict[str, Any]:
    """Training with a gradient scaler; it may skip the first updates, so the losses are compared loosely."""
    found = check_precision(folder, device, "float16", 5e-2)
    return {**found, "passed": found["passed"] and (device == "cpu" or found["scale"] is not None)}


def check_lora(folder: Path, device: str) -> dict[str, Any]:
    settings = {"lora": {"rank": 4, "dropout": 0.0}, "train": ["projector", "language_model"]}
    return check_precision(folder, device, "bfloat16", 2e-2, **settings)


def check_packing(folder: Path, device: str) -> dict[str, Any]:
    """Packed rows beside padded batches on the same device: the mean loss over the same samples."""
    common = {"precision": "float32", "train": ["projector"], "lr": 1e-8, "epochs": 1, "steps": 0}
    losses = {}
    for name, settings in (("padded", {}), ("packed", {"packing": True, "batch_size": 1})):
        recipe = write_recipe(
            folder / "start-and-data", trainer=_on(device), **{**common, "max_length": 512, **settings}
        )
        training.run(read_recipe(recipe), folder / name, workers=0)
        rows = json.loads((folder / name / "tiny/history.json").read_text(encoding="utf-8"))
        losses[name] = [row["loss"] for row in rows if "loss" in row]
    means = {name: sum(values) / len(values) for name, values in losses.items()}
    difference = abs(means["padded"] - means["packed"]) / means["padded"]
    return {**means, "difference": difference, "passed": difference < 1e-2}


def check_compile(folder: Path, device: str) -> dict[str, Any]:
    return check_precision(folder, device, "float32", 1e-4, compile=True)


def check_checkpointing(folder: Path, device: str) -> dict[str, Any]:
    return check_precision(folder, device, "float32", 1e-4, train=ALL_PARTS, gradient_checkpointing=["language_model"])


def check_flash(folder: Path, device: str) -> dict[str, Any]:
    """Logits with flash-attention beside those with SDPA, where it is installed."""
    try:
        import flash_attn  # type: ignore[import-not-found] # noqa: F401
    except ImportError:
        return {"skipped": "flash_attn is not installed", "passed": None}
    write_recipe(folder)
    logits = []
    ids = torch.arange(5, 60)[None].to(device)
    for attention in ("flash_attention_2", "sdpa"):
        loaded = load_model(folder / "start", device=device, dtype="bfloat16", attention=attention)
        with torch.no_grad():
            logits.append(loaded.model(input_ids=ids).logits.float())
    difference = float((logits[0] - logits[1]).abs().max() / logits[1].abs().max())
    return {"difference": difference, "passed": difference < 3e-2}


def check_graphs(folder: Path, device: str) -> dict[str, Any]:
    """Greedy answers of the engine, which replays CUDA graphs on a GPU, beside those of ``generate``."""
    from llava.engine.engine import Engine
    from tests.engine.test_engine import generate, load, mixed_questions, tokens
    from tests.tiny_tokenizers import words_and_letters

    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), "llama")
    questions = mixed_questions(loaded, seed=4, count=8)
    wanted = [generate(loaded, asked) for asked in questions]  # on the CPU
    loaded.model.to(device)
    with Engine(loaded, memory_bytes=2**21) as engine:
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
        gpu = engine._runner._gpu
    has_graphs = gpu is not None and bool(gpu._graphs._graphs)
    equal = sum(one == other for one, other in zip(said, wanted, strict=True))
    return {
        "equal": equal,
        "of": len(questions),
        "has_graphs": has_graphs,
        "passed": equal == len(questions) and has_graphs == (torch.device(device).type == "cuda"),
    }


def check_peak(folder: Path, device: str) -> dict[str, Any]:
    """The peak by the data sheet beside the fastest product that this card does."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    side = 8192 if device == "cuda" else 512
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    peak = find_peak(torch.device(device), dtype)
    return {"peak": peak, "measured": best, "share": best / peak, "passed": 0.3 < best / peak < 1.3 or device == "cpu"}


def check_host_memory(folder: Path, device: str) -> dict[str, Any]:
    """Anonymous memory of the host that loading takes, beside the size of the weights' files."""
    from benchmarks.train import STAGES, build_model
    from llava.model.checkpoint import save_checkpoint
    from llava.train.devices.precision import set_precision
    from llava.train.parts import choose_trainable, list_parts
    from llava.train.recipe import TuningStage
    from llava.train.starting_model import build_start

    write_recipe(folder / "tiny")
    tiny = load_model(folder / "tiny/start", device="cpu")
    model = build_model(STAGES["2"], "half").to("cpu", torch.float16) if device == "cuda" else tiny.model
    model.generation_config = tiny.model.generation_config
    processor = ImageProcessor(size=336) if device == "cuda" else tiny.image_processor
    save_checkpoint(model, tiny.tokenizer, processor, folder / "start")
    del model
    before = _count_anonymous()
    loaded = build_start(folder / "start", TuningStage(name="memory", batch_size=1, lr=1e-3), dtype=None)
    trainable = choose_trainable(loaded.model, list_parts(loaded.model), ["projector"], "The check")
    place = torch.device(device)
    set_precision(loaded.model, trainable, mixed_precision="bf16", has_original_tower=False, device=place)
    grown = _count_anonymous() - before
    stored = sum(path.stat().st_size for path in (folder / "start").glob("*.safetensors"))
    return {"grown_bytes": grown, "stored_bytes": stored, "passed": device == "cpu" or grown < stored / 2}


def _count_anonymous() -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _on(device: str) -> dict[str, Any]:
    return {"use_cpu": True} if device == "cpu" else {}


CHECKS: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    "peak": check_peak,
    "float32": check_float32,
    "bfloat16": check_bfloat16,
    "float16": check_float16,
    "lora": check_lora,
    "packing": check_packing,
    "checkpointing": check_checkpointing,
    "compile": check_compile,
    "flash": check_flash,
    "graphs": check_graphs,
    "host_memory": check_host_memory,
}


def main(arguments: list[str] | None = None) -> int:
    """0 if the check passed or has nothing to check here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = CHECKS[options.check](Path(folder), options.device)
    print(json.dumps(found), flush=True)
    return 1 if found["passed"] is False else 0


if __name__ == "__main__":
    sys.exit(main())
