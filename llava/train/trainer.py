"""``LLaVATrainer``: Transformers' Trainer with LLaVA's groups, order and loss. It stops at a fault and resumes exactly.

Research code builds it itself or subclasses it, so it needs nothing but what the originals' takes, and methods that are
overridden with the signatures of older Transformers are called with those. A recipe also passes the parameters that are
trained, with their rates.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/llava_trainer.py.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers import trainer as transformers_trainer
from transformers.trainer_utils import TrainOutput

from llava.errors import TrainingStopped, UsageError
from llava.train import training_faults
from llava.train.checkpointing import CheckpointingTrainer
from llava.train.dataset.epoch_order import BatchStream, EpochOrder
from llava.train.dataset.named_batches import NamedCollator, NamedSamples, SampleNote, take_names, take_notes
from llava.train.dataset.sampler_choice import choose_sampler
from llava.train.devices.parallel import (
    any_says,
    fit_fsdp,
    shard_on_cpu,
    share_text,
)
from llava.train.devices.precision import check_precision
from llava.train.devices.rank_faults import explaining_rank_faults, told_by_first_process
from llava.train.method_keywords import takes, without
from llava.train.optimizer import MuonWithAdamW, build_groups, check_groups, name_rates
from llava.train.parts import PartParameter, find_llava, name_trainable, scale_rates
from llava.train.report.meter import Meter
from llava.train.report.progress import ProgressCallback
from llava.train.resumption import (
    check_step,
    find_last,
    read_run_state,
    tell_changes,
)
from llava.train.speed.chunked_loss import TargetLoss
from llava.train.speed.heap import return_free_memory
from llava.train.training_faults import catching_stop_signals


class LLaVATrainer(CheckpointingTrainer):
    """Transformers' Trainer for LLaVA models.

    Args:
        tokenizer: what Transformers now calls ``processing_class``.
        trainable: the parameters that are trained, with their rates; by default those of the model that require
            gradients, at ``args.mm_projector_lr`` and ``args.mm_vision_tower_lr`` where these are given.
        arguments: those of Transformers' Trainer; ``args`` may have any of the fields of ``LlavaTrainingArguments``.

    Attributes:
        target_loss: computes the loss in place of the model's head and ``loss_function``, see ``chunked_loss``.

    Raises:
        UsageError: a trained weight is in float16, or label smoothing or NEFTune is on, which cannot follow images in a
            text.
    """

    data_collator: Any
    optimizer: Any
    _globalstep_last_logged: int
    is_fsdp_enabled: bool

    def __init__(
        self, *arguments: Any, tokenizer: Any = None, trainable: Sequence[PartParameter] | None = None, **named: Any
    ) -> None:
        if tokenizer is not None:
            named.setdefault("processing_class", tokenizer)
        self._names: dict[int, tuple[str, ...]] = {}  # of the samples of each batch of the current update, by its id
        self._notes: dict[int, tuple[SampleNote, ...]] = {}
        self.meter = Meter()
        self.progress = ProgressCallback(self.meter)
        self._order: EpochOrder | None = None
        self._loader: Any = None
        self._stream: BatchStream | None = None
        self._carries = False  # batches that an epoch leaves over belong to the next one's first update
        self._resumed_from: Path | None = None
        self.is_stopped = False  # by a signal to one of the processes
        given = inspect.signature(Trainer).bind_partial(*arguments, **named).arguments
        if given.get("model") is not None:
            fit_fsdp(given.get("args"), given["model"])
        super().__init__(*arguments, **named)
        if self.args.label_smoothing_factor:
            raise UsageError("label_smoothing_factor cannot be used: labels have no places for an image's positions.")
        if self.args.neftune_noise_alpha is not None:
            raise UsageError("neftune_noise_alpha cannot be used: texts are embedded without an axis for the batch.")
        assert self.model is not None
        check_precision(self.model)
        self.trainable = trainable
        self._is_announced = trainable is not None
        self.compatible_with: str = getattr(self.args, "compatible_with", "")
        if self.compatible_with:
            self.model_accepts_loss_kwargs = False  # the loss is the mean of the micro-batches' means
        self._call_as_defined()
        self.target_loss: TargetLoss | None = None
        self.add_callback(_RunCallback(self))
        if not self.args.disable_tqdm:
            self.remove_callback(transformers_trainer.DEFAULT_PROGRESS_CALLBACK)
            self.add_callback(self.progress)

    def create_accelerator_and_postprocess(self) -> None:
        """Transformers' own, and FSDP2 on CPUs."""
        super().create_accelerator_and_postprocess()
        self.is_fsdp_enabled = self.is_fsdp_enabled or shard_on_cpu(self.accelerator, self.args)

    def _call_as_defined(self) -> None:
        """Lets Transformers call methods that a subclass overrides with the signatures of its version 4."""
        for name in ("compute_loss", "training_step"):
            method = getattr(self, name)
            if not takes(method, "num_items_in_batch"):
                setattr(self, name, without(method, "num_items_in_batch"))
                self.loss_is_scaled_for_ga = False

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, by its name in older versions of Transformers."""
        return self.processing_class

    # The order of the samples.

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """The order of the samples: the originals' by their switches, or ours, which keeps every sample."""
        samples = self.train_dataset if train_dataset is None else train_dataset
        if samples is None or not hasattr(samples, "__len__"):
            return None
        return choose_sampler(samples, self.args, self.compatible_with)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The training data, in batches that know their samples' names."""
        if self.train_dataset is None or isinstance(self.train_dataset, IterableDataset):
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader
        collate, self.data_collator = self.data_collator, NamedCollator(self.data_collator)
        try:
            loader = self._get_dataloader(
                dataset=NamedSamples(self.train_dataset),
                description="Training",
                batch_size=self._train_batch_size,
                sampler_fn=self._build_order,
                is_training=True,
            )
        finally:
            self.data_collator = collate
        accumulation = self.args.gradient_accumulation_steps
        self._carries = bool(self.compatible_with) and len(loader) > accumulation and len(loader) % accumulation > 0
        self._loader, self._stream = loader, None
        return loader

    def set_initial_training_values(self, args: Any, dataloader: Any) -> Any:
        """Transformers' numbers; with ``compatible_with`` an epoch's updates are rounded down, as in both originals."""
        values = super().set_initial_training_values(args, dataloader)
        if not self._carries:
            return values
        epochs, _, *rest, _, steps = values
        updates = len(dataloader) // args.gradient_accumulation_steps
        steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * updates)
        epochs = math.ceil(steps / updates)
        return (epochs, updates, *rest, updates * args.gradient_accumulation_steps, steps)

    def _build_order(self, _samples: Any) -> Any:
        find = self._get_train_sampler
        sampler = find(self.train_dataset) if inspect.signature(find).parameters else find()
        self._order = None if sampler is None else EpochOrder(sampler, share_text)
        return self._order

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of one update, and the number of their targets. Raises LlavaError for a sample with a fault."""
        if self._carries:
            if self._stream is None:
                checkpoint = None if self._resumed_from is None else str(self._resumed_from)
                restore = partial(super()._load_rng_state, checkpoint)
                self._stream = BatchStream(self._loader, self._count_seen(), restore)
            epoch_iterator = self._stream.take(num_batches)
        batches = []
        for _ in range(num_batches):
            try:
                batches.append(next(epoch_iterator))
            except StopIteration:
                break
        self._names = {id(batch): take_names(batch) for batch in batches}
        self._notes = {id(batch): take_notes(batch) for batch in batches}
        return batches, self._get_num_items_in_batch(batches, device)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if not self._carries:  # otherwise the stream does it, in the middle of an update
            super()._load_rng_state(checkpoint)

    def _count_seen(self) -> int:
        """The batches of the pass over the data that have been trained on; 0 where the next one begins a pass."""
        return self.state.global_step * self.args.gradient_accumulation_steps % len(self._loader)

    # The optimizer.

    def list_trainable(self) -> Sequence[PartParameter]:
        """The parameters that are trained, with their rates: those announced, or else those that require gradients."""
        if self.trainable is not None:
            return self.trainable
        return scale_rates(name_trainable(cast(nn.Module, self.model)), {}, name_rates(self.args), "The arguments")

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimizer that ``optim`` names, over LLaVA's groups; made at the first call.

        Raises:
            UsageError: a parameter would not be trained as announced, or this optimizer takes no groups but has rates
                of single parts.
        """
        root = self.model if model is None else model
        assert root is not None
        if self.optimizer is not None:
            existing: torch.optim.Optimizer = self.optimizer
            return existing
        if self.trainable is None:
            self.trainable = scale_rates(name_trainable(root), {}, name_rates(self.args), "The arguments")
        lr, decay = self.args.learning_rate, self.args.weight_decay
        betas, eps = (self.args.adam_beta1, self.args.adam_beta2), self.args.adam_epsilon
        if getattr(self.args, "own_optimizer", "") == "muon":
            self.optimizer = MuonWithAdamW(build_groups(self.trainable, lr, decay, muon=True), betas, eps)
        else:
            try:
                kind, options = self.get_optimizer_cls_and_kwargs(self.args, root)
            except (ImportError, ValueError) as error:
                name = getattr(self.args.optim, "value", self.args.optim)
                raise UsageError(f"The optimizer {name} cannot be used: {error}") from error
            makes_own = not isinstance(kind, type) or not issubclass(kind, torch.optim.Optimizer)
            if makes_own or any(name in options for name in ("params", "model", "optimizer_dict")):
                if len({each.scale for each in self.trainable}) > 1:
                    raise UsageError(f"The optimizer {self.args.optim} has one rate for all parts; choose adamw_torch.")
                made: torch.optim.Optimizer = super().create_optimizer(model)
                return made
            self.optimizer_cls_and_kwargs = (kind, {**options, "params": build_groups(self.trainable, lr, decay)})
            super().create_optimizer(model)
        optimizer = cast(torch.optim.Optimizer, self.optimizer)
        check_groups(optimizer.param_groups, self.trainable, root, lr)
        return optimizer

    # The loss.

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's loss, with ``return_outputs`` also the outputs. Logits are computed at targets only.

        The loss is the sum over targets divided by ``num_items_in_batch``, those of the whole global batch; without it,
        the mean. For outputs that are used, all logits are computed.
        """
        assert self.model is not None
        is_loss_only = not return_outputs or (not model.training and self.args.prediction_loss_only)
        if is_loss_only and "labels" in inputs and takes(find_llava(self.model).forward, "target_loss"):
            chosen = self.meter.watch(self.target_loss) if self.target_loss and model.training else self.target_loss
            inputs = {**inputs, **({"target_loss": chosen} if chosen else {"logits_at_targets_only": True})}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one batch; its loss.

        Raises:
            LlavaError: the loss is not finite, or memory is full; the samples are named.
        """
        names, folder = self._names.get(id(inputs), ()), Path(self.args.output_dir)
        self.meter.begin_batch(inputs, self._notes.get(id(inputs), ()))
        try:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        except (RuntimeError, MemoryError) as error:
            if self.args.auto_find_batch_size or not training_faults.is_out_of_memory(error):
                raise
            raise training_faults.out_of_memory(error, inputs, names, folder) from error
        if not bool(torch.isfinite(loss)):
            raise training_faults.not_finite("loss", float(loss), self.state.global_step + 1, names, folder)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        # A scaler skips the update itself, and tries a smaller scale.
        if norm is not None and self.accelerator.scaler is None and not bool(torch.isfinite(torch.as_tensor(norm))):
            names = tuple(name for names in self._names.values() for name in names)
            step, folder = self.state.global_step + 1, Path(self.args.output_dir)
            raise training_faults.not_finite("norm of the gradients", float(norm), step, names, folder)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            return_free_memory()
            low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.args.mixed_precision, torch.float32)
            logs |= self.meter.take_row(self.args.device, low)
        super().log(logs, start_time)

    # Checkpoints.

    def train(self, resume_from_checkpoint: Any = None, *arguments: Any, **named: Any) -> TrainOutput:
        """Trains; see Transformers' Trainer. A run whose last step is in the checkpoint is only loaded.

        Ctrl-C and SIGTERM stop it after the current step, with a checkpoint.

        Raises:
            CheckpointError: the checkpoint to resume from is incomplete or damaged.
            UsageError: the run has fewer steps than that checkpoint.
            TrainingStopped: a signal stopped it.
            LlavaError: the loss is not finite, memory or the disk is full, or a sample cannot be used.
        """
        folder, self.is_stopped = Path(self.args.output_dir), False
        if resume_from_checkpoint is True:
            resume_from_checkpoint = find_last(folder)
            if resume_from_checkpoint is None:
                raise UsageError(f"There is no checkpoint to resume from in {folder}.")
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        self.remove_unfinished()
        if self._resumed_from is not None:
            num_steps = self.set_initial_training_values(self.args, self.get_train_dataloader())[-1]
            check_step(self._resumed_from, num_steps, "This run")
            with told_by_first_process():
                tell_changes(self._resumed_from, getattr(self.args, "watched", {}))
            self.check_checkpoint(self._resumed_from, num_steps)
            state = TrainerState.load_from_json(str(self._resumed_from / "trainer_state.json"))
            if state.global_step >= num_steps:  # Transformers would run one step more
                self.state = state
                self._load_from_checkpoint(str(self._resumed_from))
                return TrainOutput(state.global_step, 0.0, {})
        with (
            catching_stop_signals() as self.stop,
            explaining_rank_faults(),
            self.meter.watching(find_llava(self.model), self.train_dataset),
        ):
            try:
                result: TrainOutput = super().train(
                    str(self._resumed_from) if self._resumed_from else None, *arguments, **named
                )
            finally:
                self.progress.close()
        if self.is_stopped:
            raise TrainingStopped(
                f"Training was stopped after step {self.state.global_step} of {self.state.max_steps}. "
                f"{training_faults.say_last_checkpoint(folder)}"
            )
        return result

    def describe_run(self) -> dict[str, Any]:
        """The settings that are watched, the epoch's order and the loss since the last row of the log."""
        epoch = self.state.epoch or 0.0
        is_within_epoch = bool(self._count_seen()) if self._carries else epoch != int(epoch)
        return {
            "settings": getattr(self.args, "watched", {}),
            "order_from": self._order.began_from if self._order is not None and is_within_epoch else None,
            "loss_since_log": float(self._tr_loss),
            "last_logged_step": self._globalstep_last_logged,
        }

    def begin_epoch(self) -> None:
        """Chooses the order of the epoch that begins."""
        if self._order is not None:
            self._order.set_epoch(int(self.state.epoch or 0))

    def complete_gradients(self) -> None:
        """Gives announced parameters that no sample of this update used a gradient of zero, in place of none.

        Optimizers skip a parameter without a gradient, with its momentum and its count of steps. In both originals no
        part is skipped, because text-only samples come with a blank image; so an update is the same on any number of
        devices.
        """
        if not self._is_announced or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return
        for each in self.trainable or ():
            if each.parameter.grad is None:
                each.parameter.grad = torch.zeros_like(each.parameter)

    def begin_run(self) -> None:
        """Takes up what a checkpoint keeps beside Transformers' own state."""
        if self._resumed_from is None:
            return
        state = read_run_state(self._resumed_from)
        if self._order is not None:
            self._order.again_from = state.get("order_from")
        self._tr_loss += state.get("loss_since_log", 0.0)
        self._globalstep_last_logged = state.get("last_logged_step", self._globalstep_last_logged)


class _RunCallback(TrainerCallback):
    """Tells the trainer of the moments that it has no method for, and stops at a signal."""

    def __init__(self, trainer: LLaVATrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.begin_run()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.begin_epoch()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.complete_gradients()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if any_says(bool(self.trainer.stop), args.device):
            self.trainer.is_stopped = True
            control.should_save = control.should_training_stop = True
