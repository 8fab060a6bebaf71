"""Training speed: tokens per second and share of the machine's peak, for stage 1, stage 2 and LLaVA-NeXT's shapes.

Three sides train the same weights on the same samples in the same run, taking turns:

    llava      this package: packed rows, logits at targets only and in chunks, no unused vision layer, and, where the
               tower is frozen, its features from the cache on disk
    no levers  the same Trainer loop with padded batches, all logits, and the tower run for every batch
    original   Transformers' Trainer in the original's way: its sampler, batches padded on the right, all logits, all
               layers of the tower

A token is a position of the decoder that belongs to a sample; padding is not counted. The learning rate is so low that
no weight changes, so all sides have the same loss, which is printed. Images are random pixels that were prepared
before: decoding them is not measured. The first round fills the cache and is not in the medians.

The share of the peak is that of the operations that a side cannot do without, per second, in the fastest matrix product
that this run could do. They are counted as in the log of a training, by ``llava.train.report.throughput``; a tower
whose features come from the cache has none.

The decoder is small, so that a CPU trains it, and the tower is LLaVA's own. So the tower is a larger share of the work
than beside 7 billion parameters, where it is 2 %; ``--tower half`` shows how much depends on that.

    python benchmarks/train.py [--stages 1,2,next] [--samples 8] [--rounds 3] [--tiny]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.image.geometry import Size, plan_tiles
from llava.model import packed_attention
from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM
from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.order import LengthGroupedSampler
from llava.train.dataset.packing import PackedCollator, PackedData, pack
from llava.train.parts import choose_trainable, list_parts
from llava.train.report.throughput import measure_costs
from llava.train.speed.chunked_loss import build_target_loss
from llava.train.speed.tower_cache import TowerCache
from llava.train.trainer import LLaVATrainer
from llava.train.trainer_arguments import LlavaTrainingArguments

SIDES = ("llava", "no levers", "original")
PAD, BOS = 0, 1

# By name: the tower of every LLaVA-1.5, CLIP ViT-L/14-336; and one of half its width and depth, which has as many
# features per tile and an eighth of the weights.
TOWERS = {
    "clip-l": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
    "half": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "image_size": 336,
        "patch_size": 14,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
    },
}
# 106 million parameters, in the proportions of Llama-2 and with its vocabulary.
DECODER = {
    "vocab_size": 32000,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "max_position_embeddings": 8192,
}
DECODERS = {
    "106m": DECODER,
    # Llama's shape at 1.1 billion parameters, for a GPU.
    "1b": {
        **DECODER,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
    },
}
TINY_DECODER = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class Stage:
    """What a stage trains, how it cuts images, and how long its texts are.

    Attributes:
        text_tokens: the median of a sample's tokens beside its image; they are log-normal.
        spread: the deviation of their logarithm.
        target_share: of these tokens, how many are targets.
        text_only: the share of samples without an image, which are four times as long, as ShareGPT's beside the others.
    """

    title: str
    train: tuple[str, ...]
    text_tokens: int
    spread: float
    target_share: float
    text_only: float
    is_anyres: bool = False


# Lengths in the style of LLaVA's 558k captions and of its 665k instructions, 6 % of which have no image.
STAGES = {
    "1": Stage("stage 1 (projector)", ("projector",), 30, 0.5, 0.9, 0.0),
    "2": Stage("stage 2 (projector, language model)", ("projector", "language_model"), 200, 0.8, 0.4, 0.06),
    "next": Stage(
        "LLaVA-NeXT (AnyRes, all parts)",
        ("vision_tower", "projector", "image_newline", "language_model"),
        200,
        0.8,
        0.4,
        0.06,
        is_anyres=True,
    ),
}


@dataclass
class Measurement:
    """What one side did in the rounds."""

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    num_positions: int = 0  # of one round, padding included
    num_updates: int = 0


class Recorded(Trainer):
    """Mixed into a trainer: measures a run without its setup, and the loss over all its targets."""

    computes_all_logits = False

    def watch(self) -> Recorded:
        """This trainer, which now records ``seconds``, ``loss_sum``, ``num_targets`` and ``num_positions``."""
        self.loss_sum, self.num_targets, self.num_positions, self.seconds = 0.0, 0, 0, 0.0
        self.add_callback(_Stopwatch(self))
        self.remove_callback(PrinterCallback)
        assert self.model is not None
        self.hook = self.model.model.layers[0].register_forward_pre_hook(self._count)
        return self

    def _count(self, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.num_positions += inputs[0].shape[0] * inputs[0].shape[1]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        compute = Trainer.compute_loss.__get__(self) if self.computes_all_logits else super().compute_loss
        loss = compute(model, inputs, return_outputs, num_items_in_batch)
        self.loss_sum += float(loss.detach()) * int(num_items_in_batch)
        self.num_targets += int(num_items_in_batch)
        return loss


class _Stopwatch(TrainerCallback):
    def __init__(self, trainer: Recorded) -> None:
        self.trainer, self.began = trainer, 0.0

    def on_train_begin(self, *arguments: Any, **kwargs: Any) -> None:
        _synchronize()
        self.began = time.perf_counter()

    def on_train_end(self, *arguments: Any, **kwargs: Any) -> None:
        _synchronize()
        self.trainer.seconds = time.perf_counter() - self.began


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class OurTrainer(Recorded, LLaVATrainer):
    """This package's trainer, measured."""


class PlainTrainer(OurTrainer):
    """This package's trainer without its way of computing the loss, measured."""

    computes_all_logits = True


class OriginalTrainer(Recorded):
    """Transformers' Trainer with the original's sampler, measured."""

    modality_lengths: Sequence[int] | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.modality_lengths is None:
            return super()._get_train_sampler(train_dataset)
        return LengthGroupedSampler(self.args.train_batch_size, 1, self.modality_lengths, group_by_modality=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the stages and prints a table of each; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="1,2,next", help="of 1, 2 and next (default: all)")
    parser.add_argument("--samples", type=int, default=8, help="in a round (default: 8; a quarter of them for next)")
    parser.add_argument("--batch-size", type=int, default=4, help="samples per update (default: 4; 2 for next)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tower", choices=("clip-l", "half"), default="clip-l", help="the tower (default: clip-l)")
    parser.add_argument("--decoder", choices=DECODERS, default="106m", help="the decoder (default: 106m)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: torch's own choice)")
    parser.add_argument("--tiny", action="store_true", help="a model of toy size and one round, in seconds")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    disable_progress_bar()
    print(
        f"{_name_machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{'bfloat16' if torch.cuda.is_available() else 'float32'}"
    )
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.stages.split(","):
        figures[name] = measure_stage(STAGES[name], options)
        if options.json:
            options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


def measure_stage(stage: Stage, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Lets the sides take turns and prints their table; the same figures by side."""
    num_samples, batch_size = options.samples, options.batch_size
    if stage.is_anyres:
        num_samples, batch_size = max(2, num_samples // 4), max(1, batch_size // 2)
    rounds = 1 if options.tiny else options.rounds
    model = build_model(stage, "tiny" if options.tiny else options.tower, options.decoder)
    samples = make_samples(stage, model, num_samples, options.tiny)
    lengths = [count_positions(sample, model) for sample in samples]
    measured = {side: Measurement() for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        cache = None if "vision_tower" in stage.train else TowerCache(Path(folder) / "features", 10**12)
        peak = 0.0
        for turn in range(rounds + 1):
            peak = max(peak, measure_peak(options.tiny))  # in each round, because a machine may be busy
            for side in SIDES[turn % 3 :] + SIDES[: turn % 3]:
                run_side(side, model, samples, lengths, batch_size, Path(folder), cache, measured[side])
    operations = {
        side: count_operations(model, samples, lengths, reads_cache=side == "llava" and cache is not None)
        for side in SIDES
    }
    print(
        f"\n{stage.title}, tower {'tiny' if options.tiny else options.tower}: {num_samples} samples of {min(lengths)} "
        f"to {max(lengths)} positions, {sum(lengths):,} in all, {measured['llava'].num_updates} updates; median of "
        f"{rounds} rounds (least to most); peak {peak / 1e9:.1f} GFLOP/s",
        flush=True,
    )
    print(f"{'':12}{'tokens/s':>24}{'of original':>13}{'of peak':>9}{'padding':>9}{'loss':>9}")
    baseline = statistics.median(measured["original"].seconds[1:])
    figures = {}
    for side, each in measured.items():
        seconds = sorted(each.seconds[1:])
        median = statistics.median(seconds)
        rates = [sum(lengths) / value for value in (median, seconds[-1], seconds[0])]
        print(
            f"{side:12}{'{:.0f} ({:.0f} to {:.0f})'.format(*rates):>24}{baseline / median:>12.2f}x"
            f"{operations[side] / median / peak:>9.1%}{1 - sum(lengths) / each.num_positions:>9.1%}"
            f"{statistics.mean(each.losses):>9.4f}"
        )
        figures[side] = {
            "tokens_per_second": rates[0],
            "of_original": baseline / median,
            "of_peak": operations[side] / median / peak,
            "padding": 1 - sum(lengths) / each.num_positions,
            "loss": statistics.mean(each.losses),
        }
    if cache is not None:
        first = measured["llava"].seconds[0]
        print(f"{'':12}llava in the first epoch, which fills the cache: {sum(lengths) / first:.0f} tokens/s")
    return figures


def run_side(
    side: str,
    model: Any,
    samples: list[dict[str, Any]],
    lengths: list[int],
    batch_size: int,
    folder: Path,
    cache: TowerCache | None,
    measured: Measurement,
) -> None:
    """Trains one side on all samples once, and adds what it took."""
    num_updates = -(-len(samples) // batch_size)
    model.tower_cache = cache if side == "llava" else None
    model.config._attn_implementation = packed_attention.register() if side == "llava" else "sdpa"
    last_norm = model.get_vision_tower().vision_tower.vision_model.post_layernorm
    # A watched module runs, and so does every layer before it.
    hook = last_norm.register_forward_hook(lambda *_: None) if side == "original" else None
    common: dict[str, Any] = {
        "model": model.train(),
        "train_dataset": samples,
        "data_collator": InstructionCollator(PAD),
    }
    settings = make_arguments(folder, batch_size)
    trainer: Recorded
    if side == "original":
        trainer = original = OriginalTrainer(**common, args=settings)
        if any(not sample["images"] for sample in samples):
            words = [len(sample["input_ids"]) for sample in samples]
            original.modality_lengths = [
                num if sample["images"] else -num for num, sample in zip(words, samples, strict=True)
            ]
    elif side == "no levers":
        trainer = PlainTrainer(**common, args=settings)
    else:
        limit = find_limit(lengths, num_updates)
        packed = {"train_dataset": PackedData(samples, lengths, limit), "data_collator": PackedCollator()}  # type: ignore[arg-type]
        trainer = ours = OurTrainer(**{**common, **packed}, args=make_arguments(folder, 1))
        ours.target_loss = build_target_loss()
    trainer.watch().train()
    trainer.hook.remove()
    if hook is not None:
        hook.remove()
    measured.seconds.append(trainer.seconds)
    measured.losses.append(trainer.loss_sum / trainer.num_targets)
    measured.num_positions, measured.num_updates = trainer.num_positions, trainer.state.global_step
    del trainer
    gc.collect()


def make_arguments(folder: Path, batch_size: int) -> LlavaTrainingArguments:
    """One epoch at a rate that changes nothing, with AdamW and the clipping of both originals."""
    return LlavaTrainingArguments(
        output_dir=str(folder / "run"),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-30,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def find_limit(lengths: Sequence[int], num_rows: int) -> int:
    """The least positions of a row, in steps of 1 %, with which all samples are packed into so many rows."""
    limit = max(max(lengths), -(-sum(lengths) // num_rows))
    while len(pack(lengths, limit)) > num_rows:
        limit += max(1, limit // 100)
    return limit


def build_model(stage: Stage, tower_name: str, decoder_name: str = "106m") -> Any:
    """A LLaVA with random weights, of which the stage's parts are trained."""
    tower = TOWERS[tower_name]
    side = tower["image_size"]
    cuts: dict[str, Any] = {"image_aspect_ratio": "pad"}
    if stage.is_anyres:
        pinpoints = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]]
        cuts = {
            "image_aspect_ratio": "anyres",
            "mm_patch_merge_type": "spatial_unpad",
            "image_grid_pinpoints": pinpoints,
        }
    torch.manual_seed(0)
    config = LlavaConfig(
        **(TINY_DECODER if tower_name == "tiny" else DECODERS[decoder_name]),
        **cuts,
        mm_vision_config=tower,
        mm_hidden_size=tower["hidden_size"],
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        mm_projector_type="mlp2x_gelu",
        use_cache=False,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlavaLlamaForCausalLM(config)
    train = [part for part in stage.train if list_parts(model)[part]]
    choose_trainable(model, list_parts(model), train, "The benchmark")
    return model


def make_samples(stage: Stage, model: Any, num_samples: int, is_tiny: bool) -> list[dict[str, Any]]:
    """Samples of random ids and pixels, as ``InstructionData`` gives them; always the same ones."""
    draw, tiling = random.Random(1), model.tiling()
    generator = torch.Generator().manual_seed(1)
    num_text_only = round(stage.text_only * num_samples) or int(stage.text_only > 0)
    samples = []
    for number in range(num_samples):
        has_image = number >= num_text_only
        median = stage.text_tokens * (1 if has_image else 4) / (2 if is_tiny else 1)
        num_tokens = int(min(max(draw.lognormvariate(0, stage.spread) * median, 6), 1400))
        ids = torch.randint(3, model.config.vocab_size, (num_tokens,), generator=generator)
        labels = ids.clone()
        labels[: max(2, round(num_tokens * (1 - stage.target_share)))] = IGNORE_INDEX
        ids[0] = BOS
        images, sizes = [], []
        if has_image:
            ids[1] = IMAGE_TOKEN_INDEX
            shapes = ((640, 480), (480, 640), (500, 375), (1000, 667)) if stage.is_anyres else ((640, 480),)
            sizes = [shapes[number % len(shapes)]]
            num_tiles = plan_tiles(Size(*sizes[0]), tiling).num_tiles
            images = [torch.randn(num_tiles, 3, tiling.tile_px, tiling.tile_px, generator=generator)]
        samples.append({"input_ids": ids, "labels": labels, "images": images, "image_sizes": sizes})
    return samples


def count_positions(sample: dict[str, Any], model: Any) -> int:
    """The positions that a sample takes in the decoder."""
    plans = [plan_tiles(Size(*size), model.tiling()) for size in sample["image_sizes"]]
    return len(sample["input_ids"]) - len(plans) + sum(plan.num_positions for plan in plans)


def count_operations(model: Any, samples: list[dict[str, Any]], lengths: Sequence[int], *, reads_cache: bool) -> float:
    """The operations that training on these samples once cannot do without, see ``llava.train.report.throughput``."""
    num_targets = sum(int((sample["labels"] != IGNORE_INDEX).sum()) for sample in samples)
    num_tiles = sum(len(image) for sample in samples for image in sample["images"])
    squares = sum(length**2 for length in lengths)
    return measure_costs(model, reads_cache).count(sum(lengths), squares, num_targets, num_tiles)


def measure_peak(is_tiny: bool) -> float:
    """Operations per second of the fastest of several square matrix products, in the dtype of training."""
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    side = 256 if is_tiny else 8192 if device == "cuda" else 2048
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        _synchronize()
        began = time.perf_counter()
        one @ other
        _synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def _name_machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
