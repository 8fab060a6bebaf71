"""Trains the image adapter, and the projector with it, through the frozen language model.

    python -m llava.scratch.talking.adapter_training --model smol.pt --tokenizer tokenizer.json --output FOLDER ...

The towers do not run: descriptions are those of drawn records, and the things of photos and drawings are features that
were computed before (``--things``). A run is checkpointed every few minutes and resumes by itself, with the same
numbers: what a step draws follows from the seed and its number.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from llava.model.lexical.lexical_projector import NUM_CELLS, NUM_WHOLE, LexicalProjector
from llava.scratch.talking.adapter_samples import COMMON, Encoded, SampleSource, write_prefix
from llava.scratch.talking.general_talk import read_talk
from llava.scratch.talking.small_llama import Adapter, SmallLlama, name_from_gguf
from llava.scratch.talking.thing_samples import ThingSamples

NUM_THINGS = NUM_WHOLE + NUM_CELLS
CHECKPOINT = "checkpoint.pt"
# The rate of the projector, which is aligned already, as a part of the adapter's.
_PROJECTOR_RATE = 0.3
_WARM_UP_STEPS, _LAST_RATE = 10, 0.05
_SAVE_STEPS = 20
# A batch is one of so many that are drawn together and sorted by length, so that it holds little padding.
_BATCHES_SORTED = 4


def loss_of(
    model: SmallLlama, adapter: Adapter, projector: LexicalProjector, batch: Sequence[Encoded]
) -> tuple[torch.Tensor, int]:
    """The mean cross entropy of the targets of a batch, and how many there are."""
    ids_BL, is_target_BL, branch_BL = pad(batch)

    def embed(ids: torch.Tensor) -> torch.Tensor:
        return model.embeddings[ids]

    looks_XD = torch.cat([sample.looks for sample in batch])
    # The whole image's look is shared by its slots.
    of_slot = torch.tensor([0] * NUM_WHOLE + list(range(1, NUM_CELLS + 1)))
    of_slots = (of_slot + (NUM_CELLS + 1) * torch.arange(len(batch))[:, None]).flatten()
    things_TC = projector.say(looks_XD, torch.arange(NUM_THINGS).repeat(len(batch)), embed, of_slots)
    things_BTC = things_TC.view(len(batch), NUM_THINGS, -1)
    branch_BL = torch.cat([torch.full((len(batch), NUM_THINGS), COMMON), branch_BL], 1)
    hidden_BLC = model.hidden(torch.cat([things_BTC, embed(ids_BL)], 1), adapter, branch_BL)
    logits_XV = model.logits(hidden_BLC[:, NUM_THINGS - 1 : -1][is_target_BL])
    return torch.nn.functional.cross_entropy(logits_XV, ids_BL[is_target_BL]), int(is_target_BL.sum())


def pad(batch: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids [B, L], which of them are targets [B, L], and their branches [B, L], padded on the right."""
    length = max(len(sample.ids) for sample in batch)
    ids_BL = torch.zeros(len(batch), length, dtype=torch.long)
    is_target_BL = torch.zeros(len(batch), length, dtype=torch.bool)
    branch_BL = torch.full((len(batch), length), COMMON)
    for row, sample in enumerate(batch):
        ids_BL[row, : len(sample.ids)] = torch.tensor(sample.ids)
        is_target_BL[row, : len(sample.ids)] = torch.tensor(sample.is_target)
        branch_BL[row, : len(sample.ids)] = torch.tensor(sample.branch)
    return ids_BL, is_target_BL, branch_BL


@dataclass(frozen=True)
class Schedule:
    """How long is trained, on how much at once, and at which rate: cosine after a short warm-up."""

    steps: int
    batch_size: int
    rate: float
    seed: int

    def rate_at(self, step: int) -> float:
        """The adapter's learning rate at a step, which is counted from 0."""
        warm, done = min(1.0, (step + 1) / _WARM_UP_STEPS), step / self.steps
        return self.rate * warm * (_LAST_RATE + (1 - _LAST_RATE) * (0.5 + 0.5 * math.cos(math.pi * done)))


class AdapterTraining:
    """A training of an adapter and a projector, which continues where its folder's checkpoint ends."""

    def __init__(
        self,
        model: SmallLlama,
        adapter: Adapter,
        projector: LexicalProjector,
        draw: Callable[[random.Random], Iterator[Encoded]],
        schedule: Schedule,
        folder: Path,
    ) -> None:
        self.model, self.adapter, self.projector = model, adapter, projector.train()
        self._draw, self._schedule, self._folder = draw, schedule, folder
        learnt = [value for value in projector.parameters() if value.requires_grad]
        groups = [{"params": list(adapter.parameters()), "share": 1.0}, {"params": learnt, "share": _PROJECTOR_RATE}]
        self._learnt = [*adapter.parameters(), *learnt]
        self._optimizer = torch.optim.AdamW(groups, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).is_file():
            self._resume()

    def run(self, until: int | None = None) -> None:
        """Trains to the schedule's end, or until so many steps are done, and saves."""
        end = self._schedule.steps if until is None else until
        while self.step < end:
            began = time.perf_counter()
            line = self._take_step()
            line["seconds"] = round(time.perf_counter() - began, 2)
            with (self._folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            if self.step % _SAVE_STEPS == 0 or self.step == end:
                self._save()

    def _take_step(self) -> dict[str, float]:
        step, schedule = self.step, self._schedule
        rate = schedule.rate_at(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        torch.manual_seed(schedule.seed + step)  # of the projector's dropout
        batch = self._draw_batch()
        loss, num_targets = loss_of(self.model, self.adapter, self.projector, batch)
        self._optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._learnt, 1.0)
        self._optimizer.step()
        self.step += 1
        tokens = sum(len(sample.ids) + NUM_THINGS for sample in batch)
        line = {"step": step, "loss": round(loss.item(), 4), "norm": round(float(norm), 2), "targets": num_targets}
        return {**line, "tokens": tokens, "rate": rate}

    def _draw_batch(self) -> list[Encoded]:
        rng, size = random.Random(f"{self._schedule.seed} {self.step}"), self._schedule.batch_size
        samples = self._draw(rng)
        pool = sorted((next(samples) for _ in range(_BATCHES_SORTED * size)), key=lambda sample: len(sample.ids))
        start = size * rng.randrange(_BATCHES_SORTED)
        return pool[start : start + size]

    def _resume(self) -> None:
        state = torch.load(self._folder / CHECKPOINT, weights_only=True)
        self.adapter.load_state_dict(state["adapter"])
        self.projector.load_state_dict(state["projector"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _save(self) -> None:
        state: dict[str, Any] = {"adapter": self.adapter.state_dict(), "projector": self.projector.state_dict()}
        state |= {"optimizer": self._optimizer.state_dict(), "step": self.step}
        partial = self._folder / f"{CHECKPOINT}.partial"
        torch.save(state, partial)
        partial.replace(self._folder / CHECKPOINT)


def train(arguments: argparse.Namespace) -> None:
    """Trains for ``--steps``, or continues from the checkpoint in the output folder."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    model = SmallLlama(name_from_gguf(torch.load(arguments.model, weights_only=True)))
    torch.manual_seed(arguments.seed)
    adapter = Adapter(model.weights, model.sizes, arguments.rank, arguments.rank)
    if arguments.adapter is not None:
        adapter.load_state_dict(torch.load(arguments.adapter, weights_only=True)["adapter"])
    projector = LexicalProjector(SimpleNamespace(hidden_size=model.sizes.hidden))
    projector.load_state_dict({name: value.float() for name, value in load_file(arguments.projector).items()})
    model.set_prefix(torch.tensor(tokenizer.encode(write_prefix()).ids))
    talk = read_talk(arguments.talk) if arguments.talk is not None else []
    things = ThingSamples(arguments.things, arguments.facts)
    source = SampleSource(tokenizer, things, arguments.thing_share, talk=talk)
    schedule = Schedule(arguments.steps, arguments.batch, arguments.rate, arguments.seed)
    AdapterTraining(model, adapter, projector, source.draw, schedule, arguments.output).run()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the language model's tensors by llama.cpp's names")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--things", type=Path, required=True, help="the folder of llava.scratch.things.view_features")
    parser.add_argument("--facts", type=Path, required=True, help="JSON: a sentence about each thing by its name")
    parser.add_argument("--talk", type=Path, help="JSON of llava.scratch.talking.general_talk")
    parser.add_argument("--projector", type=Path, required=True, help="the aligned projector")
    parser.add_argument("--adapter", type=Path, help="a checkpoint whose adapter is the start")
    parser.add_argument("--thing-share", type=float, default=0.45)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
