"""Trains the net that names boxes, on boxes of drawn windows that are a little off, and on boxes of nothing.

Run it as ``python -m llava.scratch.objects.naming FOLDER --plots FOLDER --cliparts FOLDER --steps N``; it writes
``FOLDER/namer.safetensors``.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from llava.model.lexical.object_finder import COLORS, KINDS, Box, measure_overlap
from llava.model.lexical.object_namer import ObjectNamer, cut_crops
from llava.scratch.objects.looks import Mark
from llava.scratch.objects.object_samples import WINDOW_PX, Sources, draw_sample
from llava.scratch.objects.training_run import average_into, rate_at, run_command, write_weights

_WINDOWS = 24
_WARMUP_STEPS = 20
_SAVE_STEPS = 50
NOTHING = len(KINDS)


def _jitter(rng: random.Random, mark: Mark, amount: float) -> Box:
    width, height = mark.right - mark.left, mark.bottom - mark.top
    off = [rng.gauss(0, amount) for _ in range(4)]
    return (
        mark.left + off[0] * width,
        mark.top + off[1] * height,
        mark.right + off[2] * width,
        mark.bottom + off[3] * height,
    )


def _choose_nothing(rng: random.Random, marks: list[Mark]) -> Box | None:
    """A box that holds no object, or a part of one, or several."""
    side = 8 * 22 ** rng.random()
    aspect = 2 ** rng.gauss(0, 0.6)
    width, height = side * aspect**0.5, side / aspect**0.5
    x, y = rng.uniform(0, WINDOW_PX), rng.uniform(0, WINDOW_PX)
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if any(measure_overlap(box, (m.left, m.top, m.right, m.bottom)) > 0.25 for m in marks):
        return None
    return box


def draw_boxes(first: int, num_windows: int, sources: Sources, seed: str) -> tuple[Tensor, Tensor, Tensor]:
    """Crops [B, 3, 32, 32], and the indices of their kinds and colours (-1: not judged) [B], of so many windows."""
    crops, kinds, colors = [], [], []
    for index in range(first, first + num_windows):
        rng = random.Random(f"{seed} boxes {index}")
        window, marks = draw_sample(index, sources, seed)
        boxes: list[Box] = []
        whole = [
            m for m in marks
            if m.left > -4 and m.top > -4 and m.right < WINDOW_PX + 4 and m.bottom < WINDOW_PX + 4
            and min(m.right - m.left, m.bottom - m.top) > (1.3 if m.kind == "bar" else 5)
        ]  # fmt: skip
        for mark in rng.sample(whole, min(8, len(whole))):
            boxes.append(_jitter(rng, mark, rng.choice((0.0, 0.02, 0.06))))
            kinds.append(KINDS.index(mark.kind))
            colors.append(COLORS.index(mark.color) if mark.color else -1)
        for _ in range(3 if whole else 8):
            box = _choose_nothing(rng, marks)
            if box is not None:
                boxes.append(box)
                kinds.append(NOTHING)
                colors.append(-1)
        if boxes:
            crops.append(cut_crops((window.float() - 128) / 64, boxes))
    return torch.cat(crops), torch.tensor(kinds), torch.tensor(colors)


def train(folder: Path, sources: Sources, steps: int, lr: float, start: Path | None, seed: str) -> None:
    """Trains for that many steps and writes the averaged weights."""
    namer = ObjectNamer(len(KINDS), len(COLORS))
    if start is not None:
        namer.load_state_dict({k: v.float() for k, v in load_file(start).items()}, strict=False)
    optimizer = torch.optim.AdamW(namer.parameters(), lr, betas=(0.9, 0.98), weight_decay=0.02)
    mean = {k: v.clone() for k, v in namer.state_dict().items()}
    began, count, right, said = time.process_time(), 0, [0.5, 0.5], [1.0, 1.0]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(lr, step, steps, _WARMUP_STEPS)
        crops, kinds, colors = draw_boxes(step * _WINDOWS, _WINDOWS, sources, seed)
        output = namer(crops)
        of_kinds = F.cross_entropy(output[:, : NOTHING + 1], kinds, label_smoothing=0.02)
        of_colors = F.cross_entropy(output[:, NOTHING + 1 :], colors, ignore_index=-1)
        optimizer.zero_grad()
        (of_kinds + of_colors).backward()
        optimizer.step()
        average_into(mean, namer.state_dict(), max(0.04, 2 / (step + 2)))
        hits = (
            (output[:, : NOTHING + 1].argmax(1) == kinds).float().mean(),
            (output[:, NOTHING + 1 :].argmax(1) == colors)[colors >= 0].float().mean(),
        )
        right = [0.9 * a + 0.1 * float(b) for a, b in zip(right, hits, strict=True)]
        said = [0.9 * a + 0.1 * float(b.detach()) for a, b in zip(said, (of_kinds, of_colors), strict=True)]
        count += len(crops)
        if (step + 1) % 10 == 0:
            rate = count / (time.process_time() - began)
            print(f"{step + 1} right {right[0]:.3f} {right[1]:.3f} losses {said[0]:.3f} {said[1]:.3f}, {rate:.0f}/s",
                  flush=True)  # fmt: skip
        if (step + 1) % _SAVE_STEPS == 0 or step + 1 == steps:
            write_weights(mean, folder / "namer.safetensors")


if __name__ == "__main__":
    run_command(train, str(__doc__), steps=400, seed="names")
