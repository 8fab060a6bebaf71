"""DeepSpeed's own JSON file: read, checked against the run, and changed where it would train something else.

Its ``optimizer`` and ``scheduler`` are left out: they know one learning rate for all parts and no weight decay by
parameter, and would replace those of the run. In ZeRO stage 3 the weights are gathered when the model is saved.

Source: haotian-liu/LLaVA@c121f04 scripts/{zero2,zero3,zero3_offload}.json; transformers 5.23 integrations/deepspeed.py.
"""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils.deepspeed import HfDeepSpeedConfig
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from llava.errors import Notice, UsageError
from llava.train.recipe import TuningStage

_MISMATCH = re.compile(r"- ds (\S+?)=(.*) vs hf (.*)=(.*)")


def stand_in(stage: TuningStage, world_size: int) -> TuningStage:
    """The stage with FSDP2 in place of a DeepSpeed that is not installed; otherwise the stage itself.

    ZeRO-3 becomes FSDP2 with resharding, ZeRO-1 and 2 without it. One process needs neither, and a quantized model
    cannot be sharded: each device then holds the whole of it.

    Raises:
        UsageError: DeepSpeed's file cannot be used.
    """
    if not stage.deepspeed or importlib.util.find_spec("deepspeed") is not None:
        return stage
    zero = read_deepspeed(stage.deepspeed, f"Stage '{stage.name}'").get("zero_optimization", {})
    if world_size == 1 or not zero.get("stage") or stage.quantization is not None:
        instead, stage = "each device holds the whole model", replace(stage, deepspeed="")
    else:
        kinds = ["full_shard" if zero["stage"] == 3 else "shard_grad_op"]
        if any(zero.get(key, {}).get("device") == "cpu" for key in ("offload_param", "offload_optimizer")):
            kinds.append("offload")
        instead = f"FSDP2 ({', '.join(kinds)}) shards the model in its place"
        stage = replace(stage, deepspeed="", sharding="fsdp", trainer={**stage.trainer, "fsdp": kinds})
    warnings.warn(f"DeepSpeed is not installed: {instead}.", Notice, stacklevel=5)
    return stage


def read_deepspeed(path: str, where: str) -> dict[str, Any]:
    """The configuration in a JSON file with the changes described above. Raises UsageError, which names the fault.

    A ``path`` that begins with a brace is the JSON itself, as Transformers takes it.
    """
    try:
        config = json.loads(path if path.lstrip().startswith("{") else Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{where}: the DeepSpeed file {path} cannot be read: {reason}.") from error
    if not isinstance(config, dict):
        raise UsageError(f"{where}: the DeepSpeed file {path} has to be an object, {{...}}.")
    zero = config.get("zero_optimization", {})
    zero_stage = zero.get("stage", 0) if isinstance(zero, dict) else None
    if zero_stage not in (0, 1, 2, 3):
        raise UsageError(f"{where}: {path} has zero_optimization.stage: {zero_stage}, which can be 0, 1, 2 or 3.")
    if zero_stage == 3:
        config["zero_optimization"] = {**zero, "stage3_gather_16bit_weights_on_model_save": True}
    left_out = [name for name in ("optimizer", "scheduler") if config.pop(name, None) is not None]
    if left_out:
        warnings.warn(
            f"{' and '.join(left_out)} of {path} are left out: the run's own rates, weight decay and schedule count.",
            Notice,
            stacklevel=6,
        )
    return config


def resolve_deepspeed(config: dict[str, Any], arguments: Any, model: Any = None, num_steps: int = 1) -> dict[str, Any]:
    """The configuration with each "auto" replaced, as the Trainer will do it; needs no DeepSpeed.

    Args:
        model: for the sizes of buckets; without it they stay "auto".

    Raises:
        UsageError: a value contradicts the run's; both are named.
    """
    resolver = _Resolver(config)
    resolver.trainer_config_process(arguments)
    try:
        if model is not None:
            resolver.trainer_config_finalize(arguments, model, num_steps)
    except ValueError as error:
        if not resolver.mismatches:
            raise UsageError(str(error)) from error
    if resolver.mismatches:
        told = []
        for line in resolver.mismatches:
            key, value, name, own = _MISMATCH.fullmatch(line).groups()  # type: ignore[union-attr]
            told.append(f"{key} is {value}, but {name} of the run is {own}")
        raise UsageError(f'The DeepSpeed file contradicts the run: {"; ".join(told)}. Set these to "auto" there.')
    resolved: dict[str, Any] = resolver.config
    return resolved


class _Resolver(HfTrainerDeepSpeedConfig, HfDeepSpeedConfig):
    """Transformers' translation, without a search for DeepSpeed and without a trace in its global state."""

    def __init__(self, config: dict[str, Any]) -> None:
        HfDeepSpeedConfig.__init__(self, config)
        self._dtype = None
        self.mismatches: list[str] = []
