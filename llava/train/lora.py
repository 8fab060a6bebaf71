"""LoRA: PEFT's low-rank adapters on the decoder's linear layers, new ones or those of an earlier training.

The layers are chosen by their full paths. The originals hand PEFT the last part of each name, which also matches
``q_proj``, ``k_proj`` and ``v_proj`` of a vision tower. The projector is trained in full beside the adapters.

Source: haotian-liu/LLaVA@c121f04 llava/train/train.py (find_all_linear_names); peft 0.21 tuners/lora.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from llava.errors import UsageError
from llava.model.adapters import Adapter, read_lora
from llava.train.recipe import Lora
from llava.train.typed_values import check_word
from llava.yaml_files import name_nearest

ADAPTER = "default"  # PEFT's name of the only adapter
_DECODER = "model.layers."
_WRAPPER = "base_model.model."


def check_lora(lora: Lora, where: str) -> None:
    """Raises UsageError for a setting out of range."""
    if lora.rank < 1:
        raise UsageError(f"{where}: lora.rank is {lora.rank} and must be at least 1.")
    if not lora.alpha > 0:
        raise UsageError(f"{where}: lora.alpha is {lora.alpha} and must be above 0.")
    if not 0 <= lora.dropout < 1:
        raise UsageError(f"{where}: lora.dropout is {lora.dropout} and must be at least 0 and below 1.")
    check_word(lora.bias, ("none", "all", "lora_only"), f"{where}: lora.bias cannot be")


def find_targets(model: Any, names: Sequence[str] = (), where: str = "LoRA") -> list[str]:
    """The full paths of the decoder's linear layers, without the head; of those that ``names`` name, if there are any.

    A name is a layer's own, such as "q_proj", or the end of its path. Raises UsageError for one that no layer has.
    """
    paths = [
        path for path, module in model.named_modules() if path.startswith(_DECODER) and isinstance(module, nn.Linear)
    ]
    for name in names:
        if not any(_has_name(path, name) for path in paths):
            own = sorted({path.rpartition(".")[2] for path in paths})
            raise UsageError(
                f"{where}: lora.targets names '{name}', which is no linear layer of the decoder; these are "
                f"{', '.join(own)}.{name_nearest(name, own)}"
            )
    return [path for path in paths if not names or any(_has_name(path, name) for name in names)]


def _has_name(path: str, name: str) -> bool:
    return f".{path}".endswith(f".{name}")


def add_lora(model: Any, lora: Lora, where: str, base: str, revision: str | None = None) -> Any:
    """The model as a ``PeftModel`` with new adapters, which change nothing yet. Only they require gradients.

    Args:
        where: what messages begin with, such as "Stage 'tune'".
        base, revision: what adapter_config.json will name as the model that the adapters belong to.

    Raises:
        UsageError: ``lora.targets`` names a layer that the decoder does not have.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        use_dora=lora.dora,
        target_modules=find_targets(model, lora.targets, where),
        task_type="CAUSAL_LM",
        revision=revision,
    )
    return _wrap(model, config, base)


def continue_lora(model: Any, adapter: Adapter, lora: Lora, base: str, revision: str | None = None) -> Any:
    """The model as a ``PeftModel`` with the adapters of an earlier training, to train on; see ``add_lora``.

    Rank, alpha, layers and bias are the adapter's own; only the dropout is the stage's.

    Raises:
        CheckpointError: the adapter was trained on another model.
        UsageError: it was trained with single tokens, which is not supported.
    """
    from peft import LoraConfig, set_peft_model_state_dict

    if adapter.tokens:
        raise UsageError(
            f"{adapter.folder} has single trained tokens (trainable_token_indices), which cannot be trained on: merge "
            f"it (llava convert {adapter.folder} MERGED --to original) and start from that."
        )
    settings, state = read_lora(model, adapter)
    settings.update(task_type="CAUSAL_LM", lora_dropout=lora.dropout, revision=revision)
    wrapped = _wrap(model, LoraConfig(**settings), base)
    result = set_peft_model_state_dict(wrapped, {_WRAPPER + name: tensor for name, tensor in state.items()}, ADAPTER)
    assert not result.unexpected_keys, result.unexpected_keys
    return wrapped


def _wrap(model: Any, config: Any, base: str) -> Any:
    from peft import get_peft_model

    model.name_or_path = base  # PEFT takes the base's name from here
    with warnings.catch_warnings(), _looking_like_float32(model, config):
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")  # PEFT still reads that attribute
        wrapped = get_peft_model(model, config)
    adapted = {id(parameter) for parameter in list_adapter_parameters(wrapped)}
    for parameter in wrapped.parameters():
        if parameter.requires_grad != (id(parameter) in adapted):  # a quantized weight takes no call
            parameter.requires_grad_(not parameter.requires_grad)
    return wrapped.eval()


@contextmanager
def _looking_like_float32(model: Any, config: Any) -> Iterator[None]:
    """Inside the block the layers that get adapters have weights in float32, without values and without memory.

    PEFT casts an adapter to the dtype of its layer before it casts it to float32, so new ones would be rounded to the
    16 bits in which frozen weights are loaded. DoRA reads the weights, so with it they stay what they are.
    """
    swapped = []
    if not config.use_dora:
        for path in config.target_modules:
            weight = model.get_submodule(path).weight
            if weight.is_floating_point() and weight.dtype != torch.float32:
                swapped.append((weight, weight.data))
                weight.data = torch.zeros((), device=weight.device).expand(weight.shape)
    try:
        yield
    finally:
        for weight, data in swapped:
            weight.data = data


def has_lora(model: Any) -> bool:
    """Whether the model is a ``PeftModel``."""
    return getattr(model, "peft_config", None) is not None and hasattr(model, "get_base_model")


def list_adapter_parameters(model: Any) -> list[nn.Parameter]:
    """What a ``PeftModel`` trains of its language model: LoRA matrices, DoRA magnitudes, and biases if asked for.

    The biases are the decoder's alone, and for "lora_only" those of layers with an adapter.
    """
    bias = model.peft_config[ADAPTER].bias
    return [parameter for name, parameter in model.named_parameters() if is_adapter_name(name, bias)]


def is_adapter_name(name: str, bias: str) -> bool:
    """Whether a ``PeftModel``'s parameter of that name belongs to its adapters; see ``list_adapter_parameters``."""
    if not name.startswith(_WRAPPER + _DECODER):
        return False
    if ".lora_" in name:
        return True
    return bias != "none" and name.endswith(".base_layer.bias" if bias == "lora_only" else ".bias")


def prepare_quantized(model: Any) -> None:
    """Readies a model with a quantized decoder for LoRA, by PEFT: freezes it, with norms in float32.

    Embeddings, head and tower, which are large and stay frozen, keep their dtype.
    """
    from peft import prepare_model_for_kbit_training

    kept = {
        name: parameter.dtype
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and re.search(r"embed_tokens|lm_head|vision_tower", name)
    }
    prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    for name, parameter in model.named_parameters():
        if name in kept and parameter.dtype != kept[name]:
            parameter.data = parameter.data.to(kept[name])
    assert all(p.dtype == torch.float32 for n, p in model.named_parameters() if "norm" in n and n not in kept)
