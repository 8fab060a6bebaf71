"""The arguments of a training: Transformers' own and the originals' by their names, and what a recipe adds to them.

``LlavaTrainingArguments`` is what research code written for either original calls ``TrainingArguments``. Fields that a
recipe sets and no command line of the originals has are not parsed from one (``init=False``).

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py (TrainingArguments).
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import distributed
from transformers import get_scheduler
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import is_torch_tf32_available

from llava.errors import Notice, UsageError
from llava.model.placement import cpu_has_bfloat16, cpu_is_faster_in_bfloat16
from llava.train.devices.deepspeed_config import read_deepspeed, resolve_deepspeed, stand_in
from llava.train.devices.parallel import check_sharding, claim_device, count_processes, translate_fsdp
from llava.train.recipe import TuningStage
from llava.train.typed_values import check_word
from llava.yaml_files import name_nearest

# The share of all steps below which Transformers reads ``warmup_steps`` as a share; at 1 it is a number of steps.
_BELOW_ONE = 1 - 1e-12
# How a stage's ``group_by`` is called in the originals' arguments.
_GROUPINGS = {
    "length": "group_by_length",
    "modality": "group_by_modality_length",
    "modality_auto": "group_by_modality_length_auto",
    "variable_length": "group_by_varlen",
}
# Settings of a stage that do not change what is learned, or are watched by other names.
_UNWATCHED = (
    *("name", "data", "eval_data", "log_steps", "save_steps", "eval_steps", "save_limit", "report_to", "max_skipped"),
    *("global_batch_size", "gradient_checkpointing", "cache_features", "compile", "sharding", "deepspeed"),
)
# Training arguments that a recipe sets by names of its own.
_RENAMED = {
    "learning_rate": "lr",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "lr_scheduler_type": "schedule",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "warmup_steps": "warmup",
    "warmup_ratio": "warmup",
    "logging_steps": "log_steps",
    "save_steps": "save_steps",
    "save_total_limit": "save_limit",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "bf16": "precision",
    "fp16": "precision",
    "seed": "seed",
    "report_to": "report_to",
    "deepspeed": "deepspeed",
    "model_max_length": "max_length",
    "eval_steps": "eval_steps",
    "torch_compile": "compile",
    "output_dir": "--output",
    "dataloader_num_workers": "--workers",
    "gradient_checkpointing": "gradient_checkpointing",
    "activation_checkpointing": "gradient_checkpointing",
}
_FIELDS = {each.name for each in dataclasses.fields(transformers.TrainingArguments)}
# Transformers renamed it in 5.22.
_CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in _FIELDS else "gradient_checkpointing"


@dataclass(repr=False)
class LlavaTrainingArguments(transformers.TrainingArguments):
    """Transformers' TrainingArguments with both originals' fields and ours; what this machine lacks is a notice.

    Attributes:
        group_by_length, group_by_modality_length, group_by_modality_length_auto, group_by_varlen: the order of the
            samples, see ``llava.train.dataset.order``.
        tune_mm_mlp_adapter, mm_tunable_parts: set by the originals' ``train()`` from their ModelArguments.
        compatible_with: as in ``TuningStage``; "" takes the better choice in each case.
        own_optimizer: "muon" in place of ``optim``.
        watched: settings by name whose change is told when a checkpoint is resumed.
    """

    report_to: str | list[str] | None = "none"
    cache_dir: str | None = None
    optim: str = "adamw_torch"
    remove_unused_columns: bool = False
    freeze_mm_mlp_adapter: bool = False
    freeze_mm_vision_resampler: bool = False
    mpt_attn_impl: str | None = "triton"
    model_max_length: int = field(default=512, metadata={"help": "Maximum sequence length, in tokens."})
    double_quant: bool = True
    quant_type: str = "nf4"
    bits: int = 16
    lora_enable: bool = False
    lora_r: int = 64
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_weight_path: str = ""
    lora_bias: str = "none"
    mm_projector_lr: float | None = None
    mm_vision_tower_lr: float | None = None
    group_by_length: bool = False
    group_by_varlen: bool = False
    group_by_modality_length: bool = False
    group_by_modality_length_auto: bool = False
    verbose_logging: bool = False
    attn_implementation: str | None = None

    tune_mm_mlp_adapter: bool = field(default=False, init=False)
    mm_tunable_parts: str | None = field(default=None, init=False)
    compatible_with: str = field(default="", init=False)
    own_optimizer: str = field(default="", init=False)
    watched: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.gradient_checkpointing is not None and getattr(self, _CHECKPOINTING) is None:
            setattr(self, _CHECKPOINTING, self.gradient_checkpointing)
        self._leave_out_what_is_missing()
        if self.use_cpu and count_processes() > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=timedelta(seconds=self.ddp_timeout))
        try:
            super().__post_init__()
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self.n_gpu > 1:
            warnings.warn(
                f"The training uses one of {self.n_gpu} GPUs. For all of them, start it with torchrun "
                f"--nproc_per_node {self.n_gpu}.",
                Notice,
                stacklevel=3,
            )
            self._n_gpu = 1  # Transformers would use DataParallel, which cannot split lists of images

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """The updates during which the rate rises: a share is rounded, but rounded up as in the originals for them.

        Rounded up, the first update of the shortest run has the rate 0.
        """
        if self.warmup_steps < 1 and not self.compatible_with:
            return round(num_training_steps * self.warmup_steps)
        num_steps: int = super().get_warmup_steps(num_training_steps)
        return num_steps

    def _leave_out_what_is_missing(self) -> None:
        """Switches off what this machine cannot do, with a notice: scripts for GPUs run on a CPU in small."""
        asked: Any = self
        if not (torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()):
            self.use_cpu = True
        names = [asked.report_to] if isinstance(asked.report_to, str) else list(asked.report_to or ())
        for name in names:
            check_word(name, ("none", "all", *INTEGRATION_TO_CALLBACK), "report_to cannot be")
        missing = {*names} & {*INTEGRATION_TO_CALLBACK} - {*get_available_reporting_integrations()}
        if missing:
            named = ", ".join(sorted(missing))
            warnings.warn(f"report_to {named} is left out: it is not installed.", Notice, stacklevel=2)
            asked.report_to = [name for name in names if name not in missing]
        if asked.tf32 and not is_torch_tf32_available():
            warnings.warn("tf32 is left out: it needs a CUDA GPU from Ampere on.", Notice, stacklevel=2)
            asked.tf32 = None
        if self.use_cpu and asked.fp16:
            warnings.warn("fp16 is left out: on a CPU training runs in float32.", Notice, stacklevel=2)
            asked.fp16 = False
        if self.use_cpu and asked.bf16 and not cpu_has_bfloat16():
            warnings.warn("bf16 is left out: this CPU has no bfloat16 and would only emulate it.", Notice, stacklevel=2)
            asked.bf16 = False


def make_arguments(
    stage: TuningStage,
    folder: str | Path,
    workers: int = 1,
    *,
    world_size: int = 1,
    kind: type[LlavaTrainingArguments] | None = None,
) -> LlavaTrainingArguments:
    """The arguments of a stage whose checkpoints and log go to ``folder``.

    Args:
        workers: processes that prepare samples; 0 is this process itself.
        world_size: devices, over which ``global_batch_size`` is divided.
        kind: a subclass to make, whose further fields ``trainer`` may set.

    Raises:
        UsageError: a key of ``trainer`` is unknown, values contradict each other, or the global batch is no multiple of
            ``batch_size`` on all devices.
    """
    known = _FIELDS if kind is None else {each.name for each in dataclasses.fields(kind) if each.init}
    for name in stage.trainer:
        if name not in known:
            raise UsageError(f"Stage '{stage.name}': trainer has the unknown key '{name}'.{name_nearest(name, known)}")
        if kind is None and name in _RENAMED:
            raise UsageError(f"Stage '{stage.name}': trainer.{name} is set by {_RENAMED[name]}: change that.")
    kinds = {*INTEGRATION_TO_CALLBACK, "all", "none"}
    for name in stage.report_to:
        check_word(name, kinds, f"Stage '{stage.name}': report_to cannot be")
    claim_device()
    values = {**_translate(stage, workers, world_size), "output_dir": str(folder), **stage.trainer}
    values |= _choose_sharding(stage, world_size)
    arguments = (kind or LlavaTrainingArguments)(**values)
    if values["deepspeed"] is not None:
        resolve_deepspeed(values["deepspeed"], arguments)
    _check_schedule(stage, arguments)
    arguments.compatible_with = stage.compatible_with
    arguments.own_optimizer = "muon" if stage.optimizer == "muon" else ""
    if stage.group_by in _GROUPINGS:
        setattr(arguments, _GROUPINGS[stage.group_by], True)
    arguments.tune_mm_mlp_adapter = stage.train == ("projector",) and stage.lora is None
    watched = {
        "data": stage.data.files if stage.data else (),
        "templates": stage.data.templates if stage.data else (),
        **{name: value for name, value in dataclasses.asdict(stage).items() if name not in _UNWATCHED},
        "accumulation": arguments.gradient_accumulation_steps,
        "processes": world_size,
        "precision": arguments.mixed_precision,
    }
    arguments.watched = json.loads(json.dumps(watched, default=str))  # as a checkpoint will have it
    return arguments


def _check_schedule(stage: TuningStage, arguments: LlavaTrainingArguments) -> None:
    """Raises UsageError if Transformers cannot make the schedule of these settings, by making it."""
    given: Any = arguments.lr_scheduler_kwargs
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    try:
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer,
            num_warmup_steps=1,
            num_training_steps=10,
            scheduler_specific_kwargs=given if given is None else dict(given),
        )
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(
            f"Stage '{stage.name}': the schedule {stage.schedule} cannot be made with trainer.lr_scheduler_kwargs "
            f"{given or 'unset'}: {error}. Set there what it needs, such as 'trainer.lr_scheduler_kwargs={{min_lr: "
            "1.0e-6}' for cosine_with_min_lr, or {num_decay_steps: 100} for warmup_stable_decay."
        ) from error


def _translate(stage: TuningStage, workers: int, world_size: int) -> dict[str, Any]:
    is_on_cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    evaluates = stage.eval_data is not None or stage.held_out > 0
    return {
        "max_steps": stage.steps or -1,
        "num_train_epochs": stage.epochs or 1.0,
        "per_device_train_batch_size": stage.batch_size,
        "per_device_eval_batch_size": stage.batch_size,
        "gradient_accumulation_steps": _count_accumulation(stage, world_size),
        "learning_rate": stage.lr,
        "lr_scheduler_type": stage.schedule,
        "warmup_steps": min(stage.warmup, _BELOW_ONE),
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "optim": "adamw_torch_fused" if torch.cuda.is_available() else "adamw_torch",
        "bf16": stage.precision == "bfloat16" or (stage.precision == "auto" and multiplies_bfloat16()),
        "fp16": stage.precision == "float16",
        "use_cpu": is_on_cpu,
        "seed": stage.seed,
        "logging_steps": stage.log_steps,
        "logging_nan_inf_filter": False,  # the trainer stops at such a loss
        "save_steps": stage.save_steps,
        "save_total_limit": stage.save_limit or None,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": stage.eval_steps or stage.save_steps if evaluates else None,
        "prediction_loss_only": True,
        "dataloader_num_workers": workers,
        "dataloader_prefetch_factor": 8 if workers else None,
        "report_to": list(stage.report_to) or "none",
        "model_max_length": stage.max_length or 512,
        # Each parameter that is trained gets a gradient in every batch, if only of zero.
        "ddp_find_unused_parameters": False,
    }


def _choose_sharding(stage: TuningStage, world_size: int) -> dict[str, Any]:
    """The arguments for FSDP2 and DeepSpeed. Raises UsageError if they are not available or exclude each other."""
    stage = stand_in(stage, world_size)
    check_sharding(stage)
    deepspeed = read_deepspeed(stage.deepspeed, f"Stage '{stage.name}'") if stage.deepspeed else None
    values: dict[str, Any] = {"fsdp": None, "fsdp_config": None, "deepspeed": deepspeed}
    if stage.sharding == "fsdp" and world_size == 1:
        warnings.warn("sharding: fsdp has no effect on a single process.", Notice, stacklevel=4)
    elif stage.sharding == "fsdp":
        kinds, given = stage.trainer.get("fsdp"), stage.trainer.get("fsdp_config")
        values |= translate_fsdp(kinds, given, f"Stage '{stage.name}'")
    return values


def _count_accumulation(stage: TuningStage, world_size: int) -> int:
    """The forward passes per update and device. Raises UsageError if the global batch is no multiple of one pass."""
    if not stage.global_batch_size:
        return stage.accumulation
    at_once = stage.batch_size * world_size
    if stage.global_batch_size % at_once:
        raise UsageError(
            f"Stage '{stage.name}': global_batch_size is {stage.global_batch_size}, which is not a multiple of "
            f"batch_size {stage.batch_size} x {world_size} devices. Choose a batch_size that divides it."
        )
    return stage.global_batch_size // at_once


def multiplies_bfloat16() -> bool:
    """Whether bfloat16 autocast is faster here. Where bfloat16 is emulated it takes five times as long as float32."""
    if torch.cuda.is_available():
        # Emulated on cards before Ampere, it would count as supported.
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_is_faster_in_bfloat16()
