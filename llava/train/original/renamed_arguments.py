"""Transformers' training arguments by the names that older versions had, as today's.

Scripts written for LLaVA pass the arguments of Transformers 4.31 to 4.40. Each name that is gone since is here once:
with its new name, with a translation, or with the reason why it has no effect any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias

Values: TypeAlias = dict[str, Any]


@dataclass
class OlderArguments:
    """The arguments that Transformers 5 no longer has, with the defaults that they had; None is not given."""

    overwrite_output_dir: bool = field(default=False)
    evaluation_strategy: str | None = field(default=None)
    per_gpu_train_batch_size: int | None = field(default=None)
    per_gpu_eval_batch_size: int | None = field(default=None)
    warmup_ratio: float = field(default=0.0)
    logging_dir: str | None = field(default=None)
    save_safetensors: bool = field(default=True)
    no_cuda: bool = field(default=False)
    use_mps_device: bool = field(default=False)
    jit_mode_eval: bool = field(default=False)
    use_ipex: bool = field(default=False)
    fp16_opt_level: str = field(default="O1")
    half_precision_backend: str = field(default="auto")
    fp16_backend: str = field(default="auto")
    tpu_num_cores: int | None = field(default=None)
    tpu_metrics_debug: bool = field(default=False)
    past_index: int = field(default=-1)
    fsdp_min_num_params: int = field(default=0)
    fsdp_transformer_layer_cls_to_wrap: str | None = field(default=None)
    adafactor: bool = field(default=False)
    group_by_length: bool = field(default=False)
    use_legacy_prediction_loop: bool = field(default=False)
    include_inputs_for_metrics: bool = field(default=False)
    push_to_hub_model_id: str | None = field(default=None)
    push_to_hub_organization: str | None = field(default=None)
    push_to_hub_token: str | None = field(default=None)
    mp_parameters: str = field(default="")
    torchdynamo: str | None = field(default=None)
    ray_scope: str | None = field(default="last")
    dispatch_batches: bool | None = field(default=None)
    split_batches: bool = field(default=False)
    include_tokens_per_second: bool = field(default=False)
    xpu_backend: str | None = field(default=None)
    sharded_ddp: str = field(default="")


OLD_NAMES = frozenset(each.name for each in fields(OlderArguments))
_DEFAULTS = {each.name: each.default for each in fields(OlderArguments)}

_RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "no_cuda": "use_cpu",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "torchdynamo": "torch_compile_backend",
}

# Transformers' own AdamW and Apex's are the same as torch's, which have taken their place.
REMOVED_OPTIMIZERS = {"adamw_hf": "adamw_torch", "adamw_apex_fused": "adamw_torch_fused"}

WITHOUT_EFFECT = {
    "overwrite_output_dir": "a run continues from the checkpoints in its folder; empty the folder to start over",
    "save_safetensors": "weights are saved as safetensors",
    "use_mps_device": "an Apple GPU is used where there is one",
    "jit_mode_eval": "Transformers no longer has it",
    "use_ipex": "Transformers no longer has it",
    "fp16_opt_level": "mixed precision is torch's own, not Apex's",
    "half_precision_backend": "mixed precision is torch's own",
    "fp16_backend": "mixed precision is torch's own",
    "tpu_num_cores": "Transformers no longer has it",
    "tpu_metrics_debug": "Transformers no longer has it",
    "past_index": "Transformers no longer has it",
    "use_legacy_prediction_loop": "Transformers no longer has it",
    "include_inputs_for_metrics": "the only metric is the loss",
    "mp_parameters": "it belongs to SageMaker",
    "ray_scope": "there is no hyperparameter search",
    "include_tokens_per_second": "the speed is in the log anyway",
    "xpu_backend": "ddp_backend has replaced it",
    "sharded_ddp": "fsdp has replaced it",
}


def _put(name: str, key: str) -> Callable[[Values, Any], None]:
    """Puts the old argument's value into the mapping that a newer argument is."""

    def put(values: Values, value: Any) -> None:
        inner = values.get(name)
        values[name] = {**(inner if isinstance(inner, dict) else {}), key: value}

    return put


def _set_warmup(values: Values, share: Any) -> None:
    if not values.get("warmup_steps"):  # a number of steps takes precedence over a share, as it always did
        values["warmup_steps"] = share


def _set_organization(values: Values, organization: Any) -> None:
    if (name := values.get("hub_model_id")) is not None:
        values["hub_model_id"] = f"{organization}/{name}"


_TRANSLATED: dict[str, Callable[[Values, Any], None]] = {
    "warmup_ratio": _set_warmup,
    "adafactor": lambda values, _: values.update(optim="adafactor"),
    "group_by_length": lambda values, _: values.update(train_sampling_strategy="group_by_length"),
    "fsdp_min_num_params": _put("fsdp_config", "min_num_params"),
    "fsdp_transformer_layer_cls_to_wrap": _put("fsdp_config", "transformer_layer_cls_to_wrap"),
    "dispatch_batches": _put("accelerator_config", "dispatch_batches"),
    "split_batches": _put("accelerator_config", "split_batches"),
    "push_to_hub_organization": _set_organization,
    # TensorBoard's callback takes its folder from the environment now, so this one is left to the caller.
    "logging_dir": lambda values, folder: values.update(logging_dir=folder),
}


def modernize(given: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """The given arguments by the names that Transformers has today, and sentences about those without effect.

    ``logging_dir`` stays as it is: it has no newer name.
    """
    values = {name: value for name, value in given.items() if name not in OLD_NAMES}
    old = {name: given[name] for name in _DEFAULTS if name in given and given[name] != _DEFAULTS[name]}
    for name, new in _RENAMED.items():
        if name in old:
            values[new] = old[name]
    for name, put in _TRANSLATED.items():
        if name in old:
            put(values, old[name])
    return values, [f"--{name} has no effect: {reason}." for name, reason in WITHOUT_EFFECT.items() if name in old]
