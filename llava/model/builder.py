"""FRONT DOOR: the original's ``llava.model.builder``: ``load_pretrained_model`` with either repository's keywords.

It translates arguments and decides nothing; ``llava.model.checkpoint.load_model`` does the work. What is different
from both originals, on purpose: the checkpoint's files say what it is, not its name; the device and the precision are
found by themselves; a keyword that means nothing is a TypeError that names it.

Source: haotian-liu/LLaVA@c121f04 llava/model/builder.py; LLaVA-VL/LLaVA-NeXT@df17966 llava/model/builder.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.config import read_json
from llava.errors import UsageError
from llava.model.checkpoint import load_model
from llava.model.placement import choose_device
from llava.model.sources import DEFAULT_MODEL, SHORT_NAMES

__all__ = ["DEFAULT_MODEL", "SHORT_NAMES", "load_pretrained_model"]

# What the original's serving and evaluation code takes a model's context to be, if config.json does not say
# max_sequence_length: also for LLaVA-1.6, which has twice that.
_USUAL_CONTEXT_TOKENS = 2048
_DTYPE_NAMES = ("float16", "bfloat16", "float32")


def load_pretrained_model(
    model_path: str | Path,
    model_base: str | Path | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: Any = None,
    use_flash_attn: Any = False,
    customized_config: Any = None,
    overwrite_config: Mapping[str, Any] | None = None,
    *,
    torch_dtype: Any = None,
    attn_implementation: str | None = None,
    multimodal: bool = True,
    **kwargs: Any,
) -> tuple[Any, Any, Any, int]:
    """(tokenizer, model, image_processor, context_len) of a checkpoint, as both originals return them.

    Args:
        model_path, model_base: see ``load_model``.
        model_name: accepted and not needed.
        device_map: "cpu", "cuda:0", an index; a map over several devices; or "auto" for the best device, and for all
            GPUs where that is too small.
        device, use_flash_attn: LLaVA's. ``torch_dtype``, ``attn_implementation`` take their places where positional
            arguments follow LLaVA-NeXT's order.
        torch_dtype: float16 on an NVIDIA GPU by default, as the original; elsewhere what suits the device, see
            ``load_model``. Also ``dtype``.
        customized_config: a config object, a dict or the path of a JSON file, read instead of config.json.
        overwrite_config: values that replace some of config.json.
        multimodal: accepted; every model here is.

    The model cuts prompts that are too long from the right, as the original does
    (``config.truncate_to_model_max_length``); one from ``load_model`` does not. ``context_len`` is the original's:
    ``config.max_sequence_length``, else 2048, but no more than the decoder has positions.

    Raises:
        CheckpointError, UsageError: see ``load_model``.
        TypeError: an unknown keyword.
    """
    dtype, offload_folder = kwargs.pop("dtype", None), kwargs.pop("offload_folder", None)
    if kwargs.pop("use_flash_attention_2", False):
        use_flash_attn = True
    for harmless in ("low_cpu_mem_usage", "use_safetensors"):
        kwargs.pop(harmless, None)
    if kwargs:
        raise TypeError(f"load_pretrained_model() got an unexpected keyword argument '{next(iter(kwargs))}'")
    # LLaVA-NeXT has torch_dtype and attn_implementation where LLaVA has device and use_flash_attn.
    dtypes = [given for given in (dtype, torch_dtype) if given is not None]
    if str(device).removeprefix("torch.") in _DTYPE_NAMES:
        dtypes.append(device)
        device = None
    if len({str(given).removeprefix("torch.") for given in dtypes}) > 1:
        raise UsageError(f"The precision is given as {' and as '.join(map(str, dtypes))}; one of them is meant.")
    if isinstance(use_flash_attn, str):
        attn_implementation, use_flash_attn = use_flash_attn, False
    if overwrite_config is not None and not isinstance(overwrite_config, Mapping):
        raise UsageError(f"overwrite_config is {overwrite_config!r}, where a dict of config.json's values is needed.")
    if load_8bit and load_4bit:
        raise UsageError("load_8bit and load_4bit are both given; one of them is meant.")

    found_device = choose_device(_find_device(device_map, device))
    loaded = load_model(
        model_path,
        base=model_base or None,
        device=found_device,
        dtype=dtypes[0] if dtypes else "float16" if found_device.type == "cuda" else None,
        attention="flash_attention_2" if use_flash_attn else attn_implementation,
        bits=8 if load_8bit else 4 if load_4bit else 16,
        config=None if customized_config is None else _read_config(customized_config),
        overrides=overwrite_config,
        device_map=device_map,
        offload_folder=offload_folder,
    )
    config = loaded.model.config
    config.truncate_to_model_max_length = True
    context_len = getattr(config, "max_sequence_length", None) or min(_USUAL_CONTEXT_TOKENS, loaded.context_tokens)
    return loaded.tokenizer, loaded.model, loaded.image_processor, context_len


def _find_device(device_map: Any, device: Any) -> Any:
    """The device that the two arguments mean, None for the best; of a map over several that of its first part."""
    if isinstance(device_map, Mapping):
        places = [place for place in device_map.values() if place != "disk"]
        device_map = places[0] if places else "cpu"
    if device_map in (None, "auto", "balanced", "balanced_low_0", "sequential"):
        return device
    if device is not None and str(device).split(":")[0] != "cuda" and str(device) != str(device_map):
        raise UsageError(f"device is '{device}', but device_map says '{device_map}': give one of them.")
    return device_map


def _read_config(given: Any) -> dict[str, Any]:
    if isinstance(given, (str, Path)):
        return read_json(Path(given))
    if isinstance(given, Mapping):
        return dict(given)
    if not hasattr(given, "to_dict"):
        raise UsageError(f"customized_config is {given!r}, where a config object, a dict or a JSON file is needed.")
    values: dict[str, Any] = given.to_dict()
    return values
