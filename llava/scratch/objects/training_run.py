"""What the trainings of the finder and of the net that names have in common: command line, rate, average, weights."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from llava.scratch.objects.object_samples import Sources

Train = Callable[[Path, Sources, int, float, "Path | None", str], None]

_LAST_RATE = 0.02


def rate_at(lr: float, step: int, steps: int, warmup_steps: int) -> float:
    """The learning rate at a step, counted from 0: it rises, then falls in a line."""
    return lr * min(1.0, (step + 1) / warmup_steps) * (_LAST_RATE + (1 - _LAST_RATE) * (1 - step / steps))


def average_into(mean: dict[str, Tensor], weights: Mapping[str, Tensor], share: float) -> None:
    """Moves the running average of the weights by ``share``; integers are copied."""
    for name in mean:
        value = weights[name]
        mean[name] = torch.lerp(mean[name], value, share) if value.is_floating_point() else value.clone()


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Writes the weights in half precision, at once."""
    small = {k: v.half() if v.is_floating_point() and "running" not in k else v for k, v in state.items()}
    part = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in small.items() if "num_batches" not in k}, part)
    os.replace(part, path)


def run_command(train: Train, description: str, *, steps: int, seed: str) -> None:
    """Reads the command line and trains on one core. ``steps`` and ``seed`` are its defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plots", required=True)
    parser.add_argument("--cliparts", required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--seed", default=seed)
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train(told.folder, Sources(told.plots, told.cliparts), told.steps, told.lr, told.start, told.seed)
