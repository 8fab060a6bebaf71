"""Runs LLaVA-NeXT's original training code and records what it does; imported by make_next.py only.

The module ``llava`` that it imports is the original's, which make_next.py has put before ours.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import accelerate
import peft
import torch

from llava import conversation as conversation_lib
from llava.model.llava_arch import LlavaMetaModel
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.train import llava_trainer
from llava.train import train as original
from tests.gold.training import inputs
from tests.gold.training.next_command_lines import Flags

torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]


class Recorder:
    """What one run did, in the order in which it did it."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.losses: list[float] = []  # one for each micro-batch, divided by the accumulation as the original does
        self.batches: list[list[int]] = []
        self.updates: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.norm: float | None = None
        self.rates: list[float] | None = None
        self.model: Any = None
        self.dataset: Any = None


class Stop(Exception):
    """Ends a run whose optimizer is all that is asked for."""


@contextlib.contextmanager
def recording(*, groups_only: bool = False, float32_tower: bool = False) -> Iterator[Recorder]:
    """Records what the original does inside the block."""
    seen = Recorder()
    restore: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        restore.append((owner, name, owner.__dict__.get(name)))
        setattr(owner, name, make(getattr(owner, name)))

    def init(old: Any) -> Any:
        def record(self: Any, *args: Any, **kwargs: Any) -> None:
            seen.model, seen.dataset = kwargs["model"], kwargs["train_dataset"]
            old(self, *args, **kwargs)

        return record

    def getitem(old: Any) -> Any:
        def record(self: Any, i: int) -> Any:
            seen.indices.append(i)
            return self._get_item(i)

        return record

    def training_step(old: Any) -> Any:
        def record(self: Any, model: Any, batch: Any) -> Any:
            taken = sum(map(len, seen.batches))
            seen.batches.append(seen.indices[taken : taken + len(batch["input_ids"])])
            loss = old(self, model, batch)
            seen.losses.append(loss.item())
            return loss

        return record

    def clip(old: Any) -> Any:
        def record(self: Any, *args: Any, **kwargs: Any) -> Any:
            norm = old(self, *args, **kwargs)
            seen.norm = norm.item()
            return norm

        return record

    def create_optimizer(old: Any) -> Any:
        def record(self: Any) -> Any:
            optimizer = old(self)
            names = {id(p): name for name, p in self.model.named_parameters()}
            seen.groups = [
                {
                    "lr": group["lr"],
                    "weight_decay": group["weight_decay"],
                    "parameters": [names[id(p)] for p in group["params"]],
                }
                for group in optimizer.param_groups
            ]
            if groups_only:
                raise Stop
            optimizer.register_step_pre_hook(
                lambda stepping, *_: setattr(seen, "rates", [group["lr"] for group in stepping.param_groups])
            )
            return optimizer

        return record

    def maybe_log(old: Any) -> Any:
        """Called after each update, before the loss is rounded for the log, and once more after each epoch."""

        def record(self: Any, *args: Any, **kwargs: Any) -> Any:
            used = sum(len(update["micro_losses"]) for update in seen.updates)
            micro = seen.losses[used:]
            if not micro:
                return old(self, *args, **kwargs)
            update = {"loss": sum(micro), "grad_norm": seen.norm, "lr": seen.rates, "micro_losses": micro}
            seen.updates.append(update | {"batches": seen.batches[used:]})
            seen.rates = None
            return old(self, *args, **kwargs)

        return record

    def log(old: Any) -> Any:
        def record(self: Any, logs: dict[str, Any]) -> Any:
            seen.log.append(dict(logs))
            return old(self, logs)

        return record

    def get_peft_model(old: Any) -> Any:
        def given(*args: Any, **kwargs: Any) -> Any:
            model = old(*args, **kwargs)
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.data.copy_(inputs.lora_values(name, tuple(parameter.shape)))
            return model

        return given

    patch(original.LLaVATrainer, "__init__", init)
    patch(original.LazySupervisedDataset, "__getitem__", getitem)
    patch(llava_trainer.LLaVATrainer, "training_step", training_step)
    patch(llava_trainer.LLaVATrainer, "create_optimizer", create_optimizer)
    patch(llava_trainer.LLaVATrainer, "_maybe_log_save_evaluate", maybe_log)
    patch(llava_trainer.LLaVATrainer, "log", log)
    patch(accelerate.Accelerator, "clip_grad_norm_", clip)
    patch(peft, "get_peft_model", get_peft_model)
    patch(peft.utils.save_and_load, "check_file_exists_on_hf_hub", lambda _: lambda *a, **k: None)
    patch(LlavaMetaModel, "initialize_vision_modules", seeded)
    if float32_tower:
        patch(CLIPVisionTower, "to", lambda _: lambda self, *a, **k: self)
    try:
        yield seen
    finally:
        for owner, name, old in reversed(restore):
            if old is None:
                delattr(owner, name)  # it was inherited
            else:
                setattr(owner, name, old)


def seeded(old: Any) -> Any:
    """initialize_vision_modules, but what it makes anew has the values of the formula instead of random ones."""

    def initialize(self: Any, model_args: Any, fsdp: Any = None) -> None:
        there = {name for name, _ in self.named_parameters()}
        old(self, model_args, fsdp)
        for name, parameter in self.named_parameters():
            made = name == "image_newline" or (
                name.startswith("mm_projector") and not model_args.pretrain_mm_mlp_adapter
            )
            if made and name not in there:
                parameter.data.copy_(torch.from_numpy(inputs.values(f"model.{name}", tuple(parameter.shape))))

    return initialize


def run(flags: Flags, work: Path, **options: Any) -> tuple[Recorder, str | None, Path]:
    """The original's train() on ``flags``: what it did, the exception that ended it, its output folder."""
    output = work / "out" / "run"
    shutil.rmtree(output, ignore_errors=True)
    filled = {name: flag.replace("{work}", str(work)) for name, flag in flags.items()} | {"output_dir": str(output)}
    sys.argv = ["llava/train/train_mem.py", *(word for name, flag in filled.items() for word in (f"--{name}", flag))]
    conversation_lib.default_conversation = conversation_lib.conv_vicuna_v0
    random.seed(0)
    error: str | None = None
    with recording(**options) as seen, contextlib.redirect_stdout(io.StringIO()):
        try:
            original.train()
        except Stop:
            pass
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}".replace(str(work), "{work}")[:300]
    return seen, error, output


class Numbered(torch.utils.data.Dataset):
    """A data set whose items are their own indices."""

    def __init__(self, modality_lengths: list[int]) -> None:
        self.modality_lengths = modality_lengths
        self.lengths = [abs(length) + (128 if length > 0 else 0) for length in modality_lengths]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> int:
        return i


class OneWeight(torch.nn.Module):
    """A model that notes its batches."""

    def __init__(self, visited: list[list[int]]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.visited = visited

    def forward(self, at: torch.Tensor) -> dict[str, torch.Tensor]:
        self.visited.append(at.tolist())
        return {"loss": self.weight * 1.0}


def visited(case: dict[str, Any], work: Path) -> dict[str, Any]:
    """The batches of one whole run of the original's trainer."""
    batches: list[list[int]] = []
    settings = dict(case["settings"])
    if settings.get("group_by"):
        settings[settings["group_by"]] = True
    settings.pop("group_by")
    arguments = original.TrainingArguments(
        output_dir=str(work / "out" / "order"), use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        gradient_checkpointing=False, logging_strategy="no", **settings,
    )  # fmt: skip
    trainer = llava_trainer.LLaVATrainer(
        model=OneWeight(batches),
        args=arguments,
        train_dataset=Numbered(inputs.lengths(case["kind"], case["count"])),
        data_collator=lambda items: {"at": torch.tensor(items)},
    )
    trainer.train()
    return {"batches": batches, "updates": trainer.state.global_step}
