"""Trains the image adapter, and the projector with it, through the frozen language model.

    python -m llava.scratch.talking.adapter_training --bundle talking.tar --output FOLDER --device cuda --batch 64 ...
    python -m llava.scratch.talking.adapter_training --model smol.pt --tokenizer tokenizer.json --output FOLDER ...

The towers do not run: descriptions are those of drawn records, and the things of photos and drawings are features that
were computed before (``--things``). A run is checkpointed every few minutes and resumes by itself, with the same
numbers: what a step draws follows from the seed and its number. Where it ends, by itself, after ``--minutes`` or by
Ctrl-C, it saves and draws ``curve.png``. Under ``torchrun --nproc-per-node 2 -m`` two processes share each batch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

from llava.errors import LlavaError, UsageError
from llava.model.lexical.lexical_projector import NUM_CELLS, NUM_WHOLE, LexicalProjector
from llava.scratch.talking.adapter_batches import Batch, Draw, StepBatches
from llava.scratch.talking.adapter_samples import NUM_THINGS, THING, SampleSource, write_prefix
from llava.scratch.talking.document_records import MAKERS
from llava.scratch.talking.general_talk import read_talk
from llava.scratch.talking.held_out_loss import CURVE, HeldOut, draw_curve
from llava.scratch.talking.small_llama import Adapter, SmallLlama, read_adapter
from llava.scratch.talking.thing_samples import ThingSamples
from llava.scratch.talking.training_files import TrainingFiles, open_bundle
from llava.train.speed.heap import keep_freed_memory, return_free_memory

CHECKPOINT, LOG, HELD_OUT = "checkpoint.pt", "log.jsonl", "held_out.jsonl"
# The rate of the projector, which is aligned already, as a part of the adapter's.
_PROJECTOR_RATE = 0.3
_WARM_UP_STEPS, _LAST_RATE = 10, 0.05
# An answer that begins with one of these is yes or no, one letter or another, or that something is not there; the other
# tokens mostly follow from it.
_DECIDING, _DECIDING_WEIGHT = ("Yes", "No", "A", "B", "C", "D", "I", "None", "Neither"), 4.0
_SAVE_STEPS, _SAVE_S = 20, 60
# Batches of all lengths fragment the heap that is kept: without this, a process grows from 5 to 11 GB in 100 steps.
_RETURN_STEPS = 10


def loss_of(
    model: SmallLlama,
    adapter: Adapter,
    projector: LexicalProjector,
    batch: Batch,
    deciding: torch.Tensor | None = None,
) -> tuple[torch.Tensor, int]:
    """The mean cross entropy of the targets of a batch, and how many there are.

    ``deciding``: ids of the tokens that count ``_DECIDING_WEIGHT`` times where an answer begins with them.
    """
    device, num_images = model.device, len(batch.looks_XD) // (NUM_CELLS + 1)

    def embed(ids: torch.Tensor) -> torch.Tensor:
        return model.embeddings[ids]

    # The whole image's look is shared by its slots.
    of_slot = torch.tensor([0] * NUM_WHOLE + list(range(1, NUM_CELLS + 1)), device=device)
    of_slots = (of_slot + (NUM_CELLS + 1) * torch.arange(num_images, device=device)[:, None]).flatten()
    slots = torch.arange(NUM_THINGS, device=device).repeat(num_images)
    things_TC = projector.say(batch.looks_XD, slots, embed, of_slots)
    words_BLC = embed(batch.ids_BL.clamp(min=0)).to(things_TC.dtype)
    embeds_BLC = words_BLC.index_put((batch.ids_BL == THING,), things_TC)
    hidden_BLC = model.hidden(embeds_BLC, adapter, batch.branch_BL)
    logits_XV = model.logits(hidden_BLC[:, :-1][batch.is_target_BL[:, 1:]])
    is_target_BL = batch.is_target_BL
    loss_X = torch.nn.functional.cross_entropy(logits_XV.float(), batch.ids_BL[is_target_BL], reduction="none")
    if deciding is not None:
        is_first_X = (~is_target_BL[:, :-1])[is_target_BL[:, 1:]]
        is_deciding_X = is_first_X & torch.isin(batch.ids_BL[is_target_BL], deciding)
        loss_X = torch.where(is_deciding_X, _DECIDING_WEIGHT, 1.0) * loss_X
    return loss_X.mean(), len(logits_XV)


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


@dataclass(frozen=True)
class Course:
    """What a training does besides its steps. Only ``deciding`` changes a number of theirs.

    Attributes:
        deciding: see ``loss_of``.
        workers: processes that draw batches ahead of time.
        held_out: samples on which the loss is measured every ``measure_steps``.
        minutes: after these, a run ends before the schedule does.
    """

    deciding: torch.Tensor | None = None
    workers: int = 0
    held_out: HeldOut | None = None
    measure_steps: int = 50
    minutes: float = math.inf


class Peers:
    """The processes that ``torchrun`` started to share each batch. Without it there is one, and nothing is exchanged.

    On two cores, two processes make 1.4 times the steps of one with two threads.
    """

    def __init__(self) -> None:
        is_one = not torch.distributed.is_initialized()
        self.rank, self.count = (0, 1) if is_one else (torch.distributed.get_rank(), torch.distributed.get_world_size())
        self.parent = os.getppid()

    @property
    def are_orphans(self) -> bool:
        """Whether ``torchrun`` was killed, after which a new one would train in the same folder beside these."""
        return self.count > 1 and os.getppid() != self.parent

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all have computed."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' values."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def add_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Makes each process's gradients the sum of all."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.sum(torch.cat([grad.flatten() for grad in grads]))
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))


class AdapterTraining:
    """A training of an adapter and a projector, which continues where its folder's checkpoint ends."""

    def __init__(
        self,
        model: SmallLlama,
        adapter: Adapter,
        projector: LexicalProjector,
        draw: Draw,
        schedule: Schedule,
        folder: Path,
        course: Course = Course(),
        peers: Peers | None = None,
    ) -> None:
        self.model, self.adapter, self.projector = model, adapter.to(model.device), projector.to(model.device).train()
        self._schedule, self._folder, self._course = schedule, folder, course
        self._peers = peers or Peers()
        if schedule.batch_size < self._peers.count:
            raise UsageError(f"--batch {schedule.batch_size} has no sample for each of {self._peers.count} processes.")
        self._batches = StepBatches(
            draw, schedule.seed, schedule.batch_size, rank=self._peers.rank, num_processes=self._peers.count
        )
        learnt = [value for value in projector.parameters() if value.requires_grad]
        groups = [{"params": list(adapter.parameters()), "share": 1.0}, {"params": learnt, "share": _PROJECTOR_RATE}]
        self._learnt = [*adapter.parameters(), *learnt]
        self._optimizer = torch.optim.AdamW(groups, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0)
        self.step = 0
        self._saved, self._is_stopped = time.monotonic(), False
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).is_file():
            self._resume()

    def stop(self) -> None:
        """Ends ``run`` after the step that it is at."""
        self._is_stopped = True

    def run(self, until: int | None = None) -> None:
        """Trains to the schedule's end, until so many steps are done, the time is over or ``stop`` is called; saves."""
        end, ends_at = self._schedule.steps if until is None else until, time.monotonic() + 60 * self._course.minutes
        pinned = self.model.device.type == "cuda"
        if self._course.held_out is not None and self.step == 0 and self._peers.is_first:
            self._measure(self._course.held_out)
        began = time.perf_counter()
        for batch in self._batches.read(range(self.step, end), self._course.workers, pinned=pinned):
            line = self._take_step(batch.to(self.model.device))
            line["seconds"] = round(time.perf_counter() - began, 2)
            if not pinned and self.step % _RETURN_STEPS == 0:
                return_free_memory()
            wants_end = self._is_stopped or self._peers.are_orphans or time.monotonic() > ends_at
            is_last = self.step == end or self._peers.sum(torch.tensor(float(wants_end))).item() > 0
            if not self._peers.is_first:
                if is_last:
                    break
                continue
            self._write(LOG, line)
            if is_last or (self.step % _SAVE_STEPS == 0 and time.monotonic() - self._saved > _SAVE_S):
                self._save()
            if self._course.held_out is not None and (is_last or self.step % self._course.measure_steps == 0):
                self._measure(self._course.held_out)
            if is_last:
                break
            began = time.perf_counter()

    def draw_curve(self) -> None:
        """Draws ``curve.png`` of all steps and measurements so far; without matplotlib, says so."""
        steps = {line["step"] + 1: line["loss"] for line in self._read(LOG)}
        held_out = {line["step"]: line["loss"] for line in self._read(HELD_OUT)}
        try:
            draw_curve(steps, held_out, self._folder / CURVE)
        except ImportError as error:
            print(f"No {CURVE} is drawn: {error}.")

    def _take_step(self, batch: Batch) -> dict[str, float]:
        step, schedule = self.step, self._schedule
        rate = schedule.rate_at(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        torch.manual_seed(schedule.seed + step)  # of the projector's dropout
        own_loss, own_targets = loss_of(self.model, self.adapter, self.projector, batch, self._course.deciding)
        num_targets, num_tokens = self._peers.sum(torch.tensor([own_targets, batch.num_tokens])).tolist()
        loss = own_loss * (own_targets / num_targets)
        self._optimizer.zero_grad()
        loss.backward()
        self._peers.add_gradients(self._learnt)
        loss = self._peers.sum(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self._learnt, 1.0)
        self._optimizer.step()
        self.step += 1
        line = {"step": step, "loss": round(loss.item(), 4), "norm": round(float(norm), 2), "targets": num_targets}
        return {**line, "tokens": num_tokens, "rate": rate}

    @torch.no_grad()
    def _measure(self, held_out: HeldOut) -> None:
        def measure(batch: Batch) -> tuple[float, int]:
            moved = batch.to(self.model.device)
            loss, count = loss_of(self.model, self.adapter, self.projector, moved)
            return loss.item(), count

        self.projector.eval()
        losses = held_out.measure(measure)
        self.projector.train()
        self._write(HELD_OUT, {"step": self.step, "loss": losses})
        print(f"step {self.step}: " + ", ".join(f"{kind} {loss:.3f}" for kind, loss in losses.items()), flush=True)

    def _write(self, name: str, line: dict[str, Any]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def _read(self, name: str) -> Iterator[dict[str, Any]]:
        """The lines of a log; of steps that were done again after a break, the last ones count."""
        file = self._folder / name
        for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
            with contextlib.suppress(ValueError):  # of a line that was cut
                yield json.loads(line)

    def _resume(self) -> None:
        state = torch.load(self._folder / CHECKPOINT, weights_only=True, map_location="cpu")
        self.adapter.load_state_dict(state["adapter"])
        self.projector.load_state_dict(state["projector"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _save(self) -> None:
        state: dict[str, Any] = {"adapter": self.adapter.state_dict(), "projector": self.projector.state_dict()}
        state |= {"optimizer": self._optimizer.state_dict(), "step": self.step}
        partial = self._folder / f"{CHECKPOINT}.partial"
        torch.save(_to_cpu(state), partial)  # so that any machine reads it
        partial.replace(self._folder / CHECKPOINT)
        self._saved = time.monotonic()


def _to_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _to_cpu(one) for key, one in value.items()}
    return [_to_cpu(one) for one in value] if isinstance(value, list) else value


@contextlib.contextmanager
def stopping_by_signals(training: AdapterTraining) -> Iterator[None]:
    """Makes the first Ctrl-C or SIGTERM end the training in order, and the second one at once.

    Under torchrun, which passes on a signal that every process may have got already, further ones do nothing: half a
    minute later it kills what has not ended.
    """
    is_passed_on = torch.distributed.is_torchelastic_launched()

    def stop(number: int, _: FrameType | None) -> None:
        training.stop()
        signal.signal(number, signal.SIG_IGN if is_passed_on else before[signal.Signals(number)])
        print("The training ends after this step.", flush=True)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(arguments: argparse.Namespace, files: TrainingFiles) -> None:
    """Trains for ``--steps``, or continues from the checkpoint in the output folder."""
    device, bf16 = torch.device(arguments.device), arguments.precision == "bf16"
    tokenizer, model = files.read_tokenizer(), files.read_model()
    torch.manual_seed(arguments.seed)
    adapter = Adapter(model.weights, model.sizes, arguments.rank, arguments.rank)
    if files.adapter is not None:
        adapter.load_state_dict(read_adapter(files.adapter))
    projector = LexicalProjector(SimpleNamespace(hidden_size=model.sizes.hidden))
    projector.load_state_dict({name: value.float() for name, value in load_file(files.projector).items()})
    model = model.to(device, torch.bfloat16 if bf16 else torch.float32)
    model.set_prefix(torch.tensor(tokenizer.encode(write_prefix()).ids, device=device))
    if arguments.compile:
        model.compile()
    talk = read_talk(files.talk) if files.talk is not None else []
    things = ThingSamples(files.things, files.facts)
    source = SampleSource(tokenizer, things, arguments.thing_share, talk=talk, kinds=arguments.kinds or tuple(MAKERS))
    schedule = Schedule(arguments.steps, arguments.batch, arguments.rate, arguments.seed)
    held_out = HeldOut(source, arguments.held_out, arguments.batch) if arguments.measure_steps else None
    deciding = torch.tensor([tokenizer.encode(word).ids[0] for word in _DECIDING], device=device)
    course = Course(deciding, arguments.workers, held_out, arguments.measure_steps, arguments.minutes)
    training = AdapterTraining(model, adapter, projector, source.draw, schedule, arguments.output, course)
    with stopping_by_signals(training):
        training.run()
        if not Peers().is_first:
            return
        training.draw_curve()
    print(f"{training.step} of {schedule.steps} steps are done: {arguments.output / CHECKPOINT}")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, help="of llava.scratch.talking.bundle; the other files replace its own")
    parser.add_argument("--model", type=Path, help="smol.pt of llava.scratch.talking.prepare, or a GGUF file")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--things", type=Path, help="the folder of llava.scratch.things.view_features")
    parser.add_argument("--facts", type=Path, help="JSON of llava.scratch.talking.thing_facts")
    parser.add_argument("--talk", type=Path, help="JSON of llava.scratch.talking.general_talk")
    parser.add_argument("--projector", type=Path, help="the aligned projector")
    parser.add_argument("--adapter", type=Path, help="a checkpoint, or a file that pack wrote, to start from")
    parser.add_argument("--thing-share", type=float, default=0.45)
    parser.add_argument("--kinds", nargs="+", choices=MAKERS, help="of records; all by their shares, if not given")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=["bf16", "fp32"], help="of products; by default bf16 on a GPU")
    parser.add_argument("--compile", action="store_true", help="compile the layers; a CPU needs a C++ compiler for it")
    parser.add_argument("--workers", type=int, help="processes that draw samples; on a GPU all cores but one")
    parser.add_argument("--minutes", type=float, default=math.inf, help="ends after these; the same command continues")
    parser.add_argument("--measure-steps", type=int, default=50, help="steps between measurements; 0 is none")
    parser.add_argument("--held-out", type=int, default=4, help="samples of each kind that are measured")
    return parser


def main() -> None:
    """Runs the command line."""
    parser = make_parser()
    arguments = parser.parse_args()
    if "LOCAL_RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    is_gpu = torch.device(arguments.device).type != "cpu"
    if is_gpu and not torch.cuda.is_available():
        parser.error(f"--device is {arguments.device}, but torch {torch.__version__} sees no GPU")
    if not is_gpu:
        keep_freed_memory()
    arguments.precision = arguments.precision or ("bf16" if is_gpu else "fp32")
    if arguments.workers is None:
        arguments.workers = max((os.cpu_count() or 1) - 1, 1) if is_gpu else 0
    given = {name: getattr(arguments, name) for name in TrainingFiles.names() if getattr(arguments, name) is not None}
    for name, path in given.items():
        if not path.exists():
            parser.error(f"--{name}: there is no '{path}'")
    try:
        with tempfile.TemporaryDirectory(prefix="llava-bundle-") as folder:
            if arguments.bundle is not None:
                files = replace(open_bundle(arguments.bundle, Path(folder)), **given)
            else:
                missing = [f"--{name}" for name in TrainingFiles.required() if name not in given]
                if missing:
                    parser.error(f"without --bundle, {', '.join(missing)} must be given")
                files = TrainingFiles(**given)
            train(arguments, files)
    except LlavaError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
