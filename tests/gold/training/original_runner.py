"""Starts the original LLaVA-1.5 trainer on a command line and records what it does. Used by make_original.py.

The first argument of the script that imports this is the folder with the original's package ``llava``; what is patched
is listed in make_original.py.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import io
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_DISABLED": "true"}
ROOT = Path(__file__).resolve().parents[3]
sys.path[:1] = [str(Path(sys.argv[1]).resolve()), str(ROOT)]  # the original's llava before ours


def _stub_deepspeed() -> None:
    for name in (
        "deepspeed",
        "deepspeed.runtime",
        "deepspeed.runtime.zero",
        "deepspeed.runtime.zero.partition_parameters",
    ):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
    sys.modules["deepspeed"].zero = sys.modules["deepspeed.runtime.zero"]  # type: ignore[attr-defined]
    sys.modules["deepspeed.runtime.zero.partition_parameters"].ZeroParamStatus = object  # type: ignore[attr-defined]


_stub_deepspeed()

import accelerate  # noqa: E402
import peft  # noqa: E402

from llava import conversation as conversation_lib  # noqa: E402
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower  # noqa: E402
from llava.train import llava_trainer  # noqa: E402
from llava.train import train as original  # noqa: E402
from tests.gold.training import command_lines, inputs  # noqa: E402


class Recorder:
    """What one run did, in the order in which it did it."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.losses: list[float] = []  # one for each micro-batch, divided by the accumulation as the original does
        self.batches: list[list[int]] = []
        self.updates: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.optimizer: Any = None
        self.norm: float | None = None
        self.rates: list[float] = []
        self.step = 0
        self.stepped = False


class Stop(Exception):
    """Ends a run whose optimizer is all that is asked for."""


@contextlib.contextmanager
def recording(*, groups_only: bool = False, float32_tower: bool = False) -> Iterator[Recorder]:
    """Records what the original does inside the block."""
    seen = Recorder()
    restore: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        old = getattr(owner, name)
        restore.append((owner, name, old))
        setattr(owner, name, make(old))

    def getitem(old: Any) -> Any:
        def record(self: Any, i: int) -> Any:
            seen.indices.append(i)
            return old(self, i)

        return record

    def training_step(old: Any) -> Any:
        def record(self: Any, model: Any, batch: Any) -> Any:
            taken = sum(map(len, seen.batches))
            size = len(batch["input_ids"])
            seen.batches.append(seen.indices[taken : taken + size])
            loss = old(self, model, batch)
            seen.losses.append(loss.item())
            return loss

        return record

    def clip(old: Any) -> Any:
        def record(self: Any, *args: Any, **kwargs: Any) -> Any:
            norm = old(self, *args, **kwargs)
            seen.norm = norm.item()
            seen.rates = [group["lr"] for group in seen.optimizer.param_groups]
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
            seen.optimizer = optimizer
            optimizer.register_step_pre_hook(lambda *_: setattr(seen, "stepped", True))
            return optimizer

        return record

    def maybe_log(old: Any) -> Any:
        """Called after each update, skipped or not, before the loss is rounded, and again after each epoch."""

        def record(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step != seen.step:
                used = sum(len(update["micro_losses"]) for update in seen.updates)
                micro = seen.losses[used:]
                seen.updates.append(
                    {"loss": sum(micro), "grad_norm": seen.norm, "lr": seen.rates, "stepped": seen.stepped}
                    | {"micro_losses": micro, "batches": seen.batches[used:]}
                )
                seen.step, seen.stepped = self.state.global_step, False
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

    patch(original.LazySupervisedDataset, "__getitem__", getitem)
    patch(llava_trainer.LLaVATrainer, "training_step", training_step)
    patch(llava_trainer.LLaVATrainer, "create_optimizer", create_optimizer)
    patch(llava_trainer.LLaVATrainer, "_maybe_log_save_evaluate", maybe_log)
    patch(llava_trainer.LLaVATrainer, "log", log)
    patch(accelerate.Accelerator, "clip_grad_norm_", clip)
    patch(peft, "get_peft_model", get_peft_model)
    patch(peft.utils.save_and_load, "file_exists", lambda _: lambda *a, **k: False)
    if float32_tower:
        patch(CLIPVisionTower, "to", lambda _: lambda self, *a, **k: self)
    try:
        yield seen
    finally:
        for owner, name, old in reversed(restore):
            if name in ("training_step", "_maybe_log_save_evaluate", "log"):
                delattr(owner, name)  # they were inherited
            else:
                setattr(owner, name, old)


def run(flags: command_lines.Flags, work: Path, **options: Any) -> tuple[Recorder, Any, str | None, Path]:
    """The original's train() on ``flags``: what it did, its model, the exception that ended it, its output folder."""
    output = work / "out" / "run"
    shutil.rmtree(output, ignore_errors=True)
    sys.argv = ["llava/train/train_mem.py", *command_lines.arguments(flags, work, output)]
    conversation_lib.default_conversation = conversation_lib.conv_vicuna_v1
    models: list[Any] = []
    old = original.LLaVATrainer.__init__

    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        models.append(kwargs["model"])
        old(self, *args, **kwargs)

    original.LLaVATrainer.__init__ = keep
    error: str | None = None
    try:
        with recording(**options) as seen, contextlib.redirect_stdout(io.StringIO()):
            try:
                original.train()
            except Stop:
                pass
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}".replace(str(work), "{work}")[:300]
    finally:
        original.LLaVATrainer.__init__ = old
    return seen, models[0] if models else None, error, output
