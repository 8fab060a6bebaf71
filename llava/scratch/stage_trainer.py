"""The training loop of a stage from scratch: Transformers' Trainer, more metrics in its log, and strict resuming.

The caller decides which parameters are trained on what; this module knows only the stage's own settings. A stage's
folder holds the Trainer's ``checkpoint-N``, ``history.json`` and ``curves.png``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerState, TrainingArguments

from llava.scratch.stage_optimizer import build_optimizer
from llava.train.parts import PartParameter, describe_trainable
from llava.train.recipe import Stage
from llava.train.report.plot import plot_history
from llava.train.resumption import check_resumable, find_last, list_weights, read_step
from llava.train.speed.heap import return_free_memory
from llava.train.trainer_arguments import multiplies_bfloat16


@dataclass(frozen=True)
class StageSetup:
    """What a stage trains: a module whose forward takes a batch as keyword arguments and returns a dict with ``loss``.

    Attributes:
        trainable: the parameters of it that are trained, see ``llava.train.parts``.
        collate: makes a batch of items of the dataset.
        in_order: whether items are taken in the dataset's order, because that is already random.
        items_per_batch: in place of the stage's ``batch_size``, where an item is more than one sample.
    """

    module: nn.Module
    trainable: Sequence[PartParameter]
    dataset: Dataset[Any]
    collate: Callable[[Sequence[Any]], dict[str, Any]]
    in_order: bool = False
    items_per_batch: int | None = None


class StageTrainer(Trainer):
    """The Trainer with a stage's optimizer, datasets that keep their order, and the module's metrics in the log."""

    def __init__(self, stage: Stage, setup: StageSetup, arguments: TrainingArguments) -> None:
        super().__init__(model=setup.module, args=arguments, train_dataset=setup.dataset, data_collator=setup.collate)
        self.stage, self.setup = stage, setup
        self.measures: dict[str, list[float]] = defaultdict(list)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The stage's optimizer, made at the first call."""
        chosen: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if chosen is None:
            stage = self.stage
            chosen = build_optimizer(self.setup.trainable, stage.optimizer, stage.lr, stage.weight_decay)
            self.optimizer = chosen
        return chosen

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Any:
        # In order, a resumed run skips the samples that it has seen without drawing them.
        if self.setup.in_order:
            return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]
        return super()._get_train_sampler(train_dataset)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The batch's loss, with ``return_outputs`` also the outputs; records every metric named ``*_right``."""
        if "input_ids" in inputs:
            inputs = {**inputs, "logits_at_targets_only": True}
        outputs = model(**inputs)
        for name, value in outputs.items():
            if name.endswith("_right") and not torch.isnan(value):  # NaN where the batch has no such label
                self.measures[name].append(float(value))
        return (outputs["loss"], outputs) if kwargs.get("return_outputs") else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update({name: sum(values) / len(values) for name, values in self.measures.items()})
            self.measures.clear()
            return_free_memory()
        super().log(logs, start_time)


def train_stage(stage: Stage, setup: StageSetup, averaged: nn.Module, here: Path, title: str, workers: int) -> None:
    """Trains the stage's module in place, resuming from the latest checkpoint in ``here`` if there is one.

    Args:
        averaged: the module to which ``weight_averaging`` is applied. It has the stage's starting weights when called.
        here: the stage's folder.
        title: of the plot.
        workers: processes that prepare samples; 0 is this process itself.

    Raises:
        CheckpointError: the checkpoint to resume from is incomplete.
        UsageError: the stage has fewer steps than that checkpoint.
    """
    share = stage.weight_averaging
    began_with = {name: tensor.clone() for name, tensor in averaged.state_dict().items()} if share else {}
    print(f"Stage '{stage.name}' trains:\n{describe_trainable(setup.trainable, stage.lr)}")
    torch.manual_seed(stage.seed)
    trainer = StageTrainer(stage, setup, _arguments(stage, setup, here, workers))
    last = find_last(here)
    if last is not None:
        check_resumable(last, setup.module, stage.steps, f"Stage '{stage.name}'")
    if last is not None and read_step(last) == stage.steps:
        # Interrupted after the last step: the Trainer would run one step more.
        trainer.state = TrainerState.load_from_json(str(last / "trainer_state.json"))
        for file in list_weights(last):
            setup.module.load_state_dict(load_file(file), strict=False)
    else:
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    (here / "history.json").write_text(json.dumps(trainer.state.log_history, indent=1), encoding="utf-8")
    plot_history(trainer.state.log_history, here / "curves.png", title)
    with torch.no_grad():
        for name, tensor in averaged.state_dict().items():
            if name in began_with:
                tensor.lerp_(began_with[name].to(tensor.device), share)


def _arguments(stage: Stage, setup: StageSetup, here: Path, workers: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(here),
        max_steps=stage.steps,
        per_device_train_batch_size=setup.items_per_batch or stage.batch_size,
        learning_rate=stage.lr,
        lr_scheduler_type=stage.schedule,
        warmup_steps=round(stage.warmup * stage.steps),
        max_grad_norm=stage.max_grad_norm,
        bf16=multiplies_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=stage.log_steps,
        save_steps=stage.save_steps,
        save_total_limit=1,
        dataloader_num_workers=workers,
        dataloader_prefetch_factor=8 if workers else None,
        remove_unused_columns=False,
        report_to="none",
        seed=stage.seed,
    )
