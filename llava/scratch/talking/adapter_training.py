"""Trains the image adapter, and the projector with it, through the frozen language model.

    python -m llava.scratch.talking.adapter_training --model smol.pt --tokenizer tokenizer.json --output FOLDER

The towers are not run: their descriptions are written by ``records``, and the things of photos and drawings come from
features that were computed before (``--things``). A run is checkpointed every few minutes and resumes by itself.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from llava.model.lexical.lexical_projector import NUM_CELLS, NUM_WHOLE, LexicalProjector
from llava.scratch.talking.records import draw_record
from llava.scratch.talking.small_llama import Adapter, SmallLlama, name_from_gguf
from llava.scratch.talking.thing_samples import ThingSamples

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
PREFIX = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
# Between two turns, and between a question and its answer, in ChatML.
TO_ANSWER, TO_QUESTION = "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n<|im_start|>user\n"


NUM_THINGS = NUM_WHOLE + NUM_CELLS
# The rate of the projector, which is aligned already, as a part of the adapter's.
PROJECTOR_RATE = 0.3


@dataclass
class Encoded:
    """One sample: ids of all positions after the image's things, and which of them are targets.

    ``looks``: what the projector makes the things' positions of, [10, D]: of the whole image and of its nine cells.
    """

    ids: list[int]
    is_target: list[bool]
    looks: torch.Tensor


def encode(description: str, turns: list[tuple[str, str]], tokenizer: Any, looks: torch.Tensor) -> Encoded:
    """A sample as the model is given it: the description, then the turns. Answers end with ``<|im_end|>``."""
    ids = tokenizer.encode(description).ids if description else []
    is_target = [False] * len(ids)
    for i, (question, answer) in enumerate(turns):
        asked = tokenizer.encode(("\n" if i == 0 else TO_QUESTION) + question + TO_ANSWER).ids
        answered = tokenizer.encode(answer + "<|im_end|>").ids
        ids += asked + answered
        is_target += [False] * len(asked) + [True] * len(answered)
    return Encoded(ids, is_target, looks)


def draw_samples(
    seed: int, tokenizer: Any, things: ThingSamples, thing_share: float, limit: int = 400
) -> Iterator[Encoded]:
    """Samples without end, of at most ``limit`` tokens; ``thing_share`` of them are about things."""
    rng = random.Random(seed)
    while True:
        if rng.random() < thing_share:
            looks, turns = things.draw(rng)
            sample = encode("", turns, tokenizer, looks)
        else:
            record = draw_record(rng)
            sample = encode(record.description, record.turns, tokenizer, things.draw_looks(rng, record.look))
        if len(sample.ids) <= limit and any(sample.is_target):
            yield sample


def loss_of(
    model: SmallLlama, adapter: Adapter, projector: LexicalProjector, batch: list[Encoded]
) -> tuple[torch.Tensor, int]:
    """The mean cross entropy of the targets, and how many there are."""
    length = max(len(sample.ids) for sample in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    wanted = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, sample in enumerate(batch):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        wanted[row, : len(sample.ids)] = torch.tensor(sample.is_target)

    def embed(of: torch.Tensor) -> torch.Tensor:
        return model.embeddings[of]

    looks = torch.cat([sample.looks for sample in batch])
    # The whole image's look is shared by its slots.
    of_slot = torch.tensor([0] * NUM_WHOLE + list(range(1, NUM_CELLS + 1)))
    of_slots = (of_slot + (NUM_CELLS + 1) * torch.arange(len(batch))[:, None]).flatten()
    said = projector.say(looks, torch.arange(NUM_THINGS).repeat(len(batch)), embed, of_slots)
    said = said.view(len(batch), NUM_THINGS, -1)
    hidden = model.hidden(torch.cat([said, embed(ids)], 1), adapter)
    logits = model.logits(hidden[:, NUM_THINGS - 1 : -1][wanted])
    return torch.nn.functional.cross_entropy(logits, ids[wanted]), int(wanted.sum())


def train(arguments: argparse.Namespace) -> None:
    """Trains for ``--steps``, or goes on from the checkpoint in the output folder."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    model = SmallLlama(name_from_gguf(torch.load(arguments.model, weights_only=True)))
    torch.manual_seed(arguments.seed)
    adapter = Adapter(model.weights, model.sizes, arguments.rank, arguments.rank)
    if arguments.adapter is not None:
        adapter.load_state_dict(torch.load(arguments.adapter, weights_only=True)["adapter"])
    projector = LexicalProjector(SimpleNamespace(hidden_size=model.sizes.hidden))
    projector.load_state_dict({name: value.float() for name, value in load_file(arguments.projector).items()})
    projector.train()
    things = ThingSamples(arguments.things, arguments.facts)
    model.set_prefix(torch.tensor(tokenizer.encode(PREFIX).ids))
    learnt = [value for value in projector.parameters() if value.requires_grad]
    groups = [{"params": list(adapter.parameters()), "share": 1.0}, {"params": learnt, "share": PROJECTOR_RATE}]
    optimizer = torch.optim.AdamW(groups, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.0)
    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, first = folder / "checkpoint.pt", 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        adapter.load_state_dict(state["adapter"])
        projector.load_state_dict(state["projector"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    samples = draw_samples(arguments.seed + 1000 * first, tokenizer, things, arguments.thing_share)
    began, seen = time.time(), 0
    for step in range(first, arguments.steps):
        warm, left = min(1.0, (step + 1) / 10), step / arguments.steps
        rate = arguments.rate * warm * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * left)))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        pool = sorted((next(samples) for _ in range(4 * arguments.batch)), key=lambda s: len(s.ids))
        start = random.Random(step).randrange(4) * arguments.batch
        batch = pool[start : start + arguments.batch]
        loss, count = loss_of(model, adapter, projector, batch)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([*adapter.parameters(), *learnt], 1.0)
        optimizer.step()
        seen += sum(len(sample.ids) + NUM_THINGS for sample in batch)
        line = {"step": step, "loss": round(loss.item(), 4), "norm": round(float(norm), 2), "targets": count}
        line |= {"tokens_per_s": round(seen / (time.time() - began)), "rate": rate}
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        if step % 20 == 19 or step + 1 == arguments.steps:
            state = {"adapter": adapter.state_dict(), "projector": projector.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--things", type=Path, required=True, help="the folder of llava.scratch.things.view_features")
    parser.add_argument("--facts", type=Path, required=True, help="JSON: a sentence about each thing by its name")
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
