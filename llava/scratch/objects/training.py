"""Trains the object finder on drawn images: Muon for its convolutions, AdamW for the rest, averaged weights at the end.

Run it as ``python -m llava.scratch.objects.training FOLDER --plots FOLDER --cliparts FOLDER --steps N``; it goes on
from ``FOLDER/state.pt`` where there is one, and writes ``FOLDER/objects.safetensors``. It learns from about twelve
images a second on one core.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from llava.model.lexical.object_finder import KINDS, ObjectFinder
from llava.scratch.objects.object_samples import Sources, Targets, draw_sample, make_targets
from llava.scratch.objects.training_run import average_into, rate_at, run_command, write_weights

_BATCH = 8
_WARMUP_STEPS = 60
_SAVE_STEPS = 100


class ConvMuon(torch.optim.Optimizer):
    """Muon for convolutions, each seen as the matrix [channels out, channels in x height x width].

    Source: Keller Jordan, https://kellerjordan.github.io/posts/muon/ (the iteration and its coefficients); the scale
    that gives a step AdamW's size is that of arXiv:2502.16982, section 2.2.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("average", torch.zeros_like(p))
                average.lerp_(p.grad, 1 - group["momentum"])
                move = _orthogonalize(p.grad.lerp(average, group["momentum"]).flatten(1)).view(p.shape)
                p.mul_(1 - group["lr"] * group["decay"])
                p.sub_(move, alpha=group["lr"] * 0.2 * math.sqrt(max(p.shape[0], p[0].numel())))


def _orthogonalize(matrix: Tensor) -> Tensor:
    """The nearest matrix with orthogonal rows, roughly, by five steps of Newton-Schulz. Rows must be the fewer."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def measure_loss(output: Tensor, to: Targets) -> list[Tensor]:
    """CenterNet's focal loss of centres; by object, cross entropy of kind and colour, and error of log distances."""
    logits = output[:, 0]
    centre = (to.heat_hw == 1).float()
    sure = logits.sigmoid()
    hits = F.logsigmoid(logits) * (1 - sure) ** 2 * centre
    misses = F.logsigmoid(-logits) * sure**2 * (1 - to.heat_hw) ** 4 * to.counts_hw
    num_objects = centre.sum().clamp(min=4)
    kinds = F.cross_entropy(output[:, 1 : 1 + len(KINDS)], to.kind_hw, ignore_index=-1, reduction="none")
    names = F.cross_entropy(output[:, 1 + len(KINDS) : -4], to.color_hw, ignore_index=-1, reduction="none")
    sides = (output[:, -4:] - to.reach_4hw).abs().mean(1)
    parts = [-(hits + misses), kinds * to.weight_hw, names * to.weight_hw, sides * to.weight_hw]
    return [part.sum() / num_objects for part in parts]


def _learn(net: ObjectFinder, first: int, sources: Sources, seed: str) -> list[float]:
    """Gradients of one batch; returns its four losses."""
    samples = [draw_sample(first + i, sources, seed) for i in range(_BATCH)]
    windows = torch.stack([window for window, _ in samples])
    targets = Targets(*map(torch.stack, zip(*(make_targets(marks) for _, marks in samples), strict=True)))
    pixels = ((windows.float() - 128) / 64).contiguous(memory_format=torch.channels_last)
    losses = measure_loss(net(pixels), targets)
    (losses[0] + losses[1] + 0.7 * losses[2] + 1.5 * losses[3]).backward()
    return [float(loss.detach()) for loss in losses]


def train(folder: Path, sources: Sources, steps: int, lr: float, start: Path | None, seed: str) -> None:
    """Trains for that many steps in all, going on where the folder's last run stopped."""
    net = ObjectFinder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is not None:
        net.load_state_dict({k: v.float() for k, v in load_file(start).items()}, strict=False)
    own = {name: p for name, p in net.named_parameters() if not name.startswith("namer.")}
    convs = [p for name, p in own.items() if p.ndim == 4 and name != "head.weight"]
    others = [p for name, p in own.items() if p.ndim != 4 or name == "head.weight"]
    optimizers = [ConvMuon(convs, lr), torch.optim.AdamW(others, lr, betas=(0.9, 0.98), weight_decay=0.0)]
    mean = {k: v.clone() for k, v in net.state_dict().items() if not k.startswith("namer.")}
    done = 0
    if (folder / "state.pt").exists():
        saved = torch.load(folder / "state.pt", weights_only=True)
        net.load_state_dict(saved["net"], strict=False)
        mean, done = saved["mean"], saved["done"]
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    began, recent = time.process_time(), [1.0, 1.0, 1.0, 1.0]
    for step in range(done, steps):
        now = rate_at(lr, step, steps, _WARMUP_STEPS)
        for optimizer in optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = now
        recent = [0.95 * a + 0.05 * b for a, b in zip(recent, _learn(net, step * _BATCH, sources, seed), strict=True)]
        for optimizer in optimizers:
            optimizer.step()
        average_into(mean, net.state_dict(), max(0.02, 2 / (step + 2)) if start is None else 0.02)
        if (step + 1) % 20 == 0:
            rate = _BATCH * (step + 1 - done) / (time.process_time() - began)
            said = " ".join(f"{loss:.3f}" for loss in recent)
            print(f"{step + 1} centre, kind, colour, box {said}; {rate:.1f}/s", flush=True)
        if (step + 1) % _SAVE_STEPS == 0 or step + 1 == steps:
            state = {"net": net.state_dict(), "mean": mean, "done": step + 1,
                     "optimizers": [o.state_dict() for o in optimizers]}  # fmt: skip
            torch.save(state, folder / "state.part")
            os.replace(folder / "state.part", folder / "state.pt")
            write_weights(mean, folder / "objects.safetensors")


if __name__ == "__main__":
    run_command(train, str(__doc__), steps=1000, seed="train")
