"""FRONT DOOR: the original's ``llava.model.builder``: ``load_pretrained_model`` with either repository's keywords.

It translates arguments and decides nothing; ``llava.model.checkpoint.load_model`` does the work. It differs from both
originals on purpose: the checkpoint's files decide what it is, not its name; the device and the dtype are chosen
automatically; an unknown keyword is a TypeError that names it.

The originals pass further keywords to ``from_pretrained``; they have the same meaning here:

    cache_dir, force_download, local_files_only, token, use_auth_token    options of the download
    revision                     of ``model_path`` on the hub: a branch, a tag or a commit
    quantization_config          bitsandbytes' config for 8 or 4 bits, or its dict; as load_8bit and load_4bit
    load_in_8bit, load_in_4bit   the same
    use_flash_attention_2        as use_flash_attn
    dtype                        as torch_dtype

These are accepted without effect: low_cpu_mem_usage, use_safetensors, trust_remote_code (no code of a checkpoint is
ever run), offload_state_dict, offload_buffers and max_memory (give a device_map), resume_download,
ignore_mismatched_sizes (a mismatch is refused), use_cache, mirror, weights_only (always true), and proxies, with a
warning. Others of ``from_pretrained`` (variant, subfolder, ...) may be None.

The model truncates prompts that are too long on the right, as the original does
(``config.truncate_to_model_max_length``); one from ``load_model`` does not. ``context_len`` is the original's:
``config.max_sequence_length``, else 2048, but no more than the decoder has positions.

Source: haotian-liu/LLaVA@c121f04 llava/model/builder.py; LLaVA-VL/LLaVA-NeXT@df17966 llava/model/builder.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.config import read_json
from llava.errors import UsageError
from llava.model.checkpoint import LoadedModel, load_model
from llava.model.default_choice import DEFAULT_MODEL, PACKAGED
from llava.model.placement import choose_device
from llava.model.recognition import read_hub_url
from llava.model.sources import SHORT_NAMES, downloading

__all__ = ["DEFAULT_MODEL", "SHORT_NAMES", "load_pretrained_model"]

_LOG = logging.getLogger("llava.model")

# The context length that the original's serving and evaluation code assumes if config.json has no max_sequence_length:
# also for LLaVA-1.6, which has twice that.
_USUAL_CONTEXT_TOKENS = 2048
_DTYPE_NAMES = ("float16", "bfloat16", "float32")
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token")
# Keywords of from_pretrained that have no effect here; see load_pretrained_model.
_HARMLESS = (
    "ignore_mismatched_sizes",
    "low_cpu_mem_usage",
    "max_memory",
    "mirror",
    "offload_buffers",
    "offload_folder",
    "offload_state_dict",
    "resume_download",
    "trust_remote_code",
    "use_cache",
    "use_safetensors",
    "weights_only",
)
# ... and those that are accepted only without a value.
_HARMLESS_UNSET = ("adapter_kwargs", "code_revision", "config", "key_mapping", "state_dict", "subfolder", "variant")


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
    vision_tower: str | Path | None = None,
    **kwargs: Any,
) -> tuple[Any, Any, Any, int]:
    """(tokenizer, model, image_processor, context_len) of a checkpoint, as both originals return them.

    Args:
        model_path, model_base: see ``load_model``. ``model_name``, ``multimodal``: accepted and not needed.
        device_map: "cpu", "cuda:0", an index; a map over several devices; or "auto" for the best device, and for all
            GPUs where that is too small.
        device, use_flash_attn: LLaVA's; LLaVA-NeXT has ``torch_dtype`` and ``attn_implementation`` at these positions,
            which are recognized there.
        torch_dtype: float16 on an NVIDIA GPU by default, as in the original; elsewhere see ``load_model``.
        customized_config: a config object, a dict or the path of a JSON file, used instead of config.json.
        overwrite_config: values that replace some of config.json.
        vision_tower: the tower's folder or hub id, instead of config.json's ``mm_vision_tower``.

    Further keywords are those of ``from_pretrained``; see the module's docstring.

    Raises:
        CheckpointError, UsageError: see ``load_model``.
        TypeError: an unknown keyword.
    """
    offload_folder, revision = kwargs.pop("offload_folder", None), kwargs.pop("revision", None)
    bits = _read_bits(load_8bit, load_4bit, kwargs)
    hub = _read_hub_options(kwargs)
    dtype, device = _read_dtypes(kwargs.pop("dtype", None), torch_dtype, device)
    attention = _read_attention(use_flash_attn, kwargs.pop("use_flash_attention_2", False), attn_implementation)
    _check_nothing_left(kwargs)
    found_device = choose_device(_find_device(device_map, device))
    with downloading(**hub):
        loaded = load_model(
            _name_revision(model_path, revision),
            base=model_base or None,
            device=found_device,
            dtype=dtype or ("float16" if found_device.type == "cuda" else None),
            attention=attention,
            bits=bits,
            config=None if customized_config is None else _read_config(customized_config),
            overrides=_read_overrides(overwrite_config),
            vision_tower=vision_tower or None,
            device_map=device_map,
            offload_folder=offload_folder,
        )
    loaded.model.config.truncate_to_model_max_length = True
    return loaded.tokenizer, loaded.model, loaded.image_processor, _find_context_len(loaded)


def _find_context_len(loaded: LoadedModel) -> int:
    """The original's ``context_len``; see the module's docstring."""
    said: int | None = getattr(loaded.model.config, "max_sequence_length", None)
    return said or min(_USUAL_CONTEXT_TOKENS, loaded.context_tokens)


def _read_overrides(given: Any) -> Mapping[str, Any] | None:
    """``overwrite_config``. Raises UsageError if it is not a dict."""
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"overwrite_config is {given!r}, where a dict of config.json's values is needed.")
    return given


def _check_nothing_left(kwargs: Mapping[str, Any]) -> None:
    """Raises TypeError for a keyword that is unknown, or that has no effect here and has a value."""
    unknown = [name for name, value in kwargs.items() if name not in _HARMLESS and not _is_unset(name, value)]
    if unknown:
        raise TypeError(f"load_pretrained_model() got an unexpected keyword argument '{unknown[0]}'")


def _is_unset(name: str, value: Any) -> bool:
    return name in _HARMLESS_UNSET and (value is None or value is False or value == "")


def _read_dtypes(dtype: Any, torch_dtype: Any, device: Any) -> tuple[Any, Any]:
    """(dtype, device): LLaVA-NeXT has torch_dtype where LLaVA has device. UsageError where two dtypes differ."""
    given = [each for each in (dtype, torch_dtype) if each is not None]
    if str(device).removeprefix("torch.") in _DTYPE_NAMES:
        given.append(device)
        device = None
    if len({str(each).removeprefix("torch.") for each in given}) > 1:
        raise UsageError(f"The dtype is given as {' and as '.join(map(str, given))}: give one of them.")
    return (given[0] if given else None), device


def _read_attention(use_flash_attn: Any, use_flash_attention_2: Any, attn_implementation: str | None) -> str | None:
    """The attention's name: LLaVA-NeXT has attn_implementation where LLaVA has use_flash_attn."""
    if use_flash_attention_2:
        return "flash_attention_2"
    if isinstance(use_flash_attn, str):
        return use_flash_attn
    return "flash_attention_2" if use_flash_attn else attn_implementation


def _read_bits(load_8bit: Any, load_4bit: Any, kwargs: dict[str, Any]) -> int:
    """16, 8 or 4, from any of the arguments that ask for bits. Raises UsageError if two of them differ."""
    wanted = {8: [load_8bit, kwargs.pop("load_in_8bit", None)], 4: [load_4bit, kwargs.pop("load_in_4bit", None)]}
    said = kwargs.pop("quantization_config", None)
    if said is not None:
        values = said if isinstance(said, Mapping) else said.to_dict() if hasattr(said, "to_dict") else {}
        method = values.get("quant_method", "bitsandbytes" if values else type(said).__name__)
        if getattr(method, "value", method) != "bitsandbytes":
            raise UsageError(f"quantization_config is for {method}; only bitsandbytes in 8 or 4 bits is supported.")
        for bits, given in wanted.items():
            # bitsandbytes' own dict has the flags with or without a leading underscore.
            given.append(values.get(f"load_in_{bits}bit") or values.get(f"_load_in_{bits}bit"))
    for bits, given in wanted.items():
        if (text := next((value for value in given if isinstance(value, str)), None)) is not None:
            raise UsageError(f"{bits} bits are asked for with the string {text!r}; True or False is needed.")
    chosen = [bits for bits, given in wanted.items() if any(given)]
    if len(chosen) > 1:
        raise UsageError("8 bits and 4 bits (load_8bit, load_4bit) are both asked for: choose one.")
    return chosen[0] if chosen else 16


def _read_hub_options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The options for ``snapshot_download``, removed from ``kwargs``."""
    options = {name: kwargs.pop(name) for name in _HUB_OPTIONS if name in kwargs}
    options.setdefault("token", kwargs.pop("use_auth_token", None))
    if kwargs.pop("proxies", None):
        _LOG.warning("proxies has no effect, the hub's client has no such option: set HTTPS_PROXY in the environment.")
    return options


def _name_revision(model_path: str | Path, revision: Any) -> str | Path:
    """The model's name with its revision; a folder has none."""
    name = read_hub_url(str(model_path))
    if not revision or os.path.exists(os.path.expanduser(name)) or name in PACKAGED:
        return model_path
    repo_id, _, said = name.partition("@")
    if said not in ("", str(revision)):
        raise UsageError(f"The revision of {repo_id} is given as '{said}' and as '{revision}': give one of them.")
    return f"{repo_id}@{revision}"


def _find_device(device_map: Any, device: Any) -> Any:
    """The device that the two arguments name, None for the best one; for a map, the device of its first part."""
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
