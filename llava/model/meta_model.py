"""A model on the meta device: every module, name and shape that config.json describes, without memory for weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from llava.config import ModelSpec
from llava.dimensions import explain_field
from llava.errors import CheckpointError, UsageError
from llava.model.llava import (
    LlavaConfig,
    LlavaLlamaForCausalLM,
    LlavaMistralConfig,
    LlavaMistralForCausalLM,
    LlavaQwenConfig,
    LlavaQwenForCausalLM,
)

_CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (LlavaConfig, LlavaLlamaForCausalLM),
    "mistral": (LlavaMistralConfig, LlavaMistralForCausalLM),
    "qwen2": (LlavaQwenConfig, LlavaQwenForCausalLM),
}


# What torch.nn.init calls on a tensor.
_INITIALIZERS = frozenset({torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.fill_, torch.Tensor.zero_})


class _WithoutValues(TorchFunctionMode):
    """Draws and initializes nothing on the meta device, and counts positions on the CPU, in this thread only.

    On the meta device torch runs these in Python, for which it imports its compiler: a second of a command's start.
    A tensor that asks for another device, such as one of a replaced tower, gets its values as always.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _INITIALIZERS or getattr(func, "__module__", "") == torch.nn.init.__name__:
            tensor = args[0] if args else kwargs["tensor"]
            return tensor if tensor.is_meta else func(*args, **kwargs)
        # Not torch.tensor: by an empty one Transformers finds out that it need not initialize anything.
        if func is torch.arange and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "cpu"}
        if func is torch.randn and torch.device(kwargs.get("device") or "meta").type == "meta":
            func, kwargs = torch.empty, {key: value for key, value in kwargs.items() if key != "generator"}
        return func(*args, **kwargs)


def build_meta_model(spec: ModelSpec, folder: Path, config_path: Path, template: str, attention: str | None) -> Any:
    """The model that ``spec`` describes, on the meta device, but for small buffers that follow from it.

    Args:
        folder: the checkpoint's, which becomes the model's ``name_or_path``.
        config_path: named in errors.
        attention: the attention implementation; by default sdpa.

    Raises:
        CheckpointError: config.json describes a model that cannot be built.
        UsageError: the attention is not installed.
    """
    config_class, model_class = _CLASSES[spec.family]
    left_out = ("model_type", "torch_dtype", "dtype", "transformers_version", "_name_or_path")
    values = {key: value for key, value in spec.config.items() if key not in left_out}
    values.update(
        architectures=[model_class.__name__],
        mm_vision_tower=spec.tower,
        mm_hidden_size=spec.tower_hidden_size,
        conversation_template=template,
        name_or_path=str(folder),
    )
    rows, pad_id = spec.vocab_size, values.get("pad_token_id")
    if isinstance(pad_id, int) and not -rows <= pad_id < rows:
        raise CheckpointError(
            f"{config_path} says pad_token_id: {pad_id}, but vocab_size: {rows}: correct the one that is wrong."
        )
    try:
        config = config_class(**values)
        config._attn_implementation = attention or "sdpa"
        with torch.device("meta"):
            try:
                with _WithoutValues():
                    return model_class(config)
            except RuntimeError:  # rotary frequencies of a rare type, which torch computes on one device alone
                return model_class(config)
    except ImportError as error:
        raise UsageError(f"The attention '{attention}' is not installed ({error}); leave it out.") from error
    except Exception as error:  # Transformers and torch raise any type for a value that makes no sense
        if (said := explain_field(error, values)) is not None:
            raise CheckpointError(f"{config_path} {said}.") from error
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{config_path} describes a model that cannot be built: {reason:.500}") from error
