"""The original's functions about a model's tensors: which are LoRA's, gathering them from ZeRO-3, saving, new tokens.

``llava.train.train`` and ``llava.train.llava_trainer`` have them under the original's names. A run itself is saved by
``llava.train.snapshots``.

Source: haotian-liu/LLaVA@c121f04 llava/train/train.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from llava.errors import UsageError
from llava.train.snapshots import save_result

Named: TypeAlias = Iterable[tuple[str, Any]]

_NOT_ADAPTED = ("mm_projector", "vision_tower", "vision_resampler")


def gather(param: Any) -> torch.Tensor:
    """A copy of the parameter on the CPU, gathered if ZeRO-3 has split it up."""
    if not hasattr(param, "ds_id"):
        return param.detach().cpu().clone()
    from deepspeed import zero

    with zero.GatheredParameters([param]):
        return param.data.detach().cpu().clone()


def gather_lora(named_params: Named, bias: str) -> dict[str, torch.Tensor]:
    """Copies of the LoRA layers' tensors and of the biases that ``bias`` names: "none", "all", "lora_only".

    Raises:
        UsageError: there is no such ``bias``.
    """
    if bias not in ("none", "all", "lora_only"):
        raise UsageError(f"lora_bias is {bias!r} and must be none, all or lora_only.")
    named = dict(named_params)
    chosen = {name for name in named if "lora_" in name}
    if bias == "all":
        chosen |= {name for name in named if "bias" in name}
    elif bias == "lora_only":
        adapted = {name.split("lora_")[0] for name in chosen}
        chosen |= {name for name in named if name.endswith("bias") and _name_layer(name) in adapted}
    return {name: gather(named[name]) for name in named if name in chosen}


def _name_layer(name: str) -> str:
    """The layer that a bias belongs to, as the names of its LoRA matrices begin; PEFT keeps the bias below it."""
    return name.removesuffix("bias").removesuffix("base_layer.")


def gather_others(named_params: Named, require_grad_only: bool = True) -> dict[str, torch.Tensor]:
    """Copies of all tensors but LoRA's, by default of those that are trained."""
    return {
        name: gather(param)
        for name, param in named_params
        if "lora_" not in name and (param.requires_grad or not require_grad_only)
    }


def gather_matching(named_params: Named, keys_to_match: Sequence[str]) -> dict[str, torch.Tensor]:
    """Copies of the tensors whose names contain one of the keys."""
    return {name: gather(param) for name, param in named_params if any(key in name for key in keys_to_match)}


def list_linear_names(model: nn.Module) -> list[str]:
    """The last parts of the names of the language model's linear layers, without its head.

    PEFT would match them in a vision tower, too; ``llava.train.lora`` uses full paths.
    """
    names = {
        name.split(".")[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name for part in _NOT_ADAPTED)
    }
    return sorted(names - {"lm_head"})


def save(trainer: Any, output_dir: str) -> None:
    """Writes the result of a finished training as the original does: the whole model, or the projector alone."""
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        trainer.save_model(output_dir)
    elif trainer.args.should_save:
        dtype = torch.bfloat16 if trainer.args.bf16 else None
        save_result(trainer.model, trainer.processing_class, output_dir, dtype=dtype)


def add_special_tokens(special_tokens_dict: Mapping[str, Any], tokenizer: Any, model: Any) -> None:
    """Adds special tokens to tokenizer and model; new rows of embeddings and head are the mean of the old ones."""
    num_new = tokenizer.add_special_tokens(dict(special_tokens_dict))
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if not num_new:
        return
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows_VC = module.weight.data
        rows_VC[-num_new:] = rows_VC[:-num_new].mean(dim=0, keepdim=True)
