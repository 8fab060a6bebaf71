"""Pre-alignment of the projector: its soft words learn to be the embeddings of names, without the language model.

``python -m llava.scratch.things.align FEATURES TOKENIZER.json MODEL.gguf OUT.safetensors`` takes minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from llava.model.lexical.projector import EMBEDDING_SCALE, NUM_CELLS, NUM_WHOLE, LexicalProjector
from llava.scratch.things.bank import FeatureBank
from llava.scratch.things.colours import COLOURS, classify_colours

BATCH = 128
LEARNING_RATE = 1e-3
PROTOTYPE_SHARE = 0.5
SLOTS = torch.arange(NUM_WHOLE + NUM_CELLS)
OF_SLOT = (SLOTS - NUM_WHOLE + 1).clamp(min=0)
"""Which of an image's ten looks each slot has."""


def read_embeddings(gguf_file: Path) -> torch.Tensor:
    """The token embeddings of a GGUF model, float32 [vocabulary, width]."""
    import gguf

    for tensor in gguf.GGUFReader(str(gguf_file)).tensors:
        if tensor.name == "token_embd.weight":
            return torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type)).float()
    raise ValueError(f"{gguf_file} has no token_embd.weight")


class Wording:
    """Token ids and target embeddings of names."""

    def __init__(self, tokenizer: Any, embeddings: torch.Tensor) -> None:
        self.tokenizer, self.embeddings = tokenizer, embeddings
        self.newline, self.comma = self.tokens("\n")[0], self.tokens(",")[0]

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def name_ids(self, name: str, kind: str) -> list[int]:
        """Six token ids: the kind in two ("bird" ","), the name in four, filled up with newlines."""
        short = kind.split(" of ")[-1]
        return [*(*self.tokens(f" {short}"), self.comma)[:2], *(*self.tokens(f" {name}"), *[self.newline] * 4)[:4]]

    def whole(self, things: list[dict[str, Any]]) -> torch.Tensor:
        """Target [6, C] of the whole image: the names of its things, averaged."""
        return torch.stack([self.embeddings[self.name_ids(t["name"], t["kind"])] for t in things]).mean(0)

    def cell(self, colour: str, name: str | None) -> torch.Tensor:
        """Target [C] of a cell: its colour and what is there."""
        second = self.tokens(f" {name}")[0] if name else self.newline
        return (self.embeddings[self.tokens(f" {colour}")[0]] + self.embeddings[second]) / 2


def cover(box: list[float], cell: int) -> float:
    """Part of a cell that a thing's box covers, without the box's outer tenth, which is mostly ground."""
    left, top = cell % 3 / 3, cell // 3 / 3
    margin = (box[2] - box[0]) / 10
    width = min(box[2] - margin, left + 1 / 3) - max(box[0] + margin, left)
    height = min(box[3] - margin, top + 1 / 3) - max(box[1] + margin, top)
    return max(width, 0) * max(height, 0) * 9


def view_target(bank: FeatureBank, index: int, wording: Wording) -> torch.Tensor:
    """Targets [15, C] of a view."""
    view = bank.views[index]
    ground = classify_colours(np.asarray(bank.colours[index], np.float32)[1:] * 255)
    rows = [wording.whole(view["objects"])]
    for cell in range(NUM_CELLS):
        covers, best = max(((cover(thing["box"], cell), i) for i, thing in enumerate(view["objects"])), default=(0, 0))
        thing = view["objects"][best] if covers > 0.25 else None
        colour = thing["colours"][0] if thing else COLOURS[ground[cell]]
        rows.append(wording.cell(colour, thing["name"] if thing else None)[None])
    return torch.cat(rows)


class Aligner:
    """The projector, what it learns from, and its optimizer."""

    def __init__(self, bank: FeatureBank, wording: Wording, steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.bank, self.wording = bank, wording
        self.rng = np.random.default_rng(seed)
        self.projector = LexicalProjector(SimpleNamespace(hidden_size=wording.embeddings.shape[1]))
        names = [wording.name_ids(c["name"], c["kind"]) for c in bank.classes]
        real = torch.from_numpy(np.asarray(bank.g[: min(bank.num_views, 4096)], np.float32))
        self.projector.set_names(names, real.mean(0), real.std(0) + 0.02)
        self.trained = [i for i, view in enumerate(bank.views) if not view["held_out"]]
        learnt = [p for p in self.projector.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learnt, LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.02)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, LEARNING_RATE, steps, pct_start=0.1)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The language model's embeddings of token ids."""
        return F.embedding(ids, self.wording.embeddings)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Looks and their targets: ten looks and [15, C] of a view, one look and [6, C] of a prototype."""
        if self.rng.random() < PROTOTYPE_SHARE:
            index = int(self.rng.integers(len(self.bank.prototype_class)))
            named = self.bank.classes[int(self.bank.prototype_class[index])]
            return self.bank.prototype_whole(index, self.rng), self.wording.whole([named])
        index = self.trained[int(self.rng.integers(len(self.trained)))]
        return self.bank.looks(index), view_target(self.bank, index, self.wording)

    def step(self) -> float:
        """One step on a batch; the mean squared error in units of the embeddings' variance."""
        looks, targets = zip(*[self.draw() for _ in range(BATCH)], strict=True)
        start, of = 0, []
        for one in looks:
            of.append(start + OF_SLOT[: NUM_WHOLE if len(one) == 1 else None])
            start += len(one)
        slots = torch.cat([SLOTS[: len(one)] for one in of])
        said, wanted = self.projector.say(torch.cat(looks), slots, self.embed, torch.cat(of)), torch.cat(targets)
        loss = F.mse_loss(said, wanted) / EMBEDDING_SCALE**2
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.projector.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())


def main() -> None:
    """Align a projector, as the command line says, and save it in bfloat16."""
    from tokenizers import Tokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("features", type=Path, help="the folder of `view_features` and `prototypes`")
    parser.add_argument("tokenizer", type=Path, help="tokenizer.json of the language model")
    parser.add_argument("gguf", type=Path, help="the language model, for its token embeddings")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--colours", choices=["rgb", "contrast"], default="contrast", help="as the tower computes them")
    parser.add_argument("--start", type=Path, help="weights to continue from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wording = Wording(Tokenizer.from_file(str(arguments.tokenizer)), read_embeddings(arguments.gguf))
    bank = FeatureBank(arguments.features, arguments.colours)
    aligner = Aligner(bank, wording, arguments.steps, arguments.seed)
    if arguments.start:
        aligner.projector.load_state_dict({name: w.float() for name, w in load_file(arguments.start).items()})
    started, losses = time.monotonic(), []
    for step in range(1, arguments.steps + 1):
        losses.append(aligner.step())
        if step % 25 == 0:
            print(f"step {step} loss {np.mean(losses[-25:]):.4f} {time.monotonic() - started:.0f} s", flush=True)
    weights = {name: value.detach().to(torch.bfloat16) for name, value in aligner.projector.state_dict().items()}
    save_file(weights, arguments.out)


if __name__ == "__main__":
    main()
