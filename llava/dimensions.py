"""Judges what a config.json says of a model's sizes and switches, before anything is built from it. Loads no torch.

A library that is given a wrong value says so in its own words, or computes with it. Here each value is named with the
file that says it and with what is needed in its place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError

# More of anything than a model has; building it would take hours, or memory that no machine has.
_MAX_LAYERS = 1000
_MAX_SIZE = 10**8
_MAX_EPSILON = 0.1

_DECODER_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
_TOWER_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "image_size", "patch_size")
# What Transformers' names of types mean.
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a name", "list": "a list"}
_SWITCHES = ("mm_use_im_start_end", "unfreeze_mm_vision_tower", "s2", "tie_word_embeddings", "use_sliding_window")
# The ways to stretch rotary embeddings, and what each counts with. Source: transformers 5.23 modeling_rope_utils.py.
_ROPE_NEEDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
_ROPE_LISTS = ("short_factor", "long_factor")


def check_dimensions(values: Mapping[str, Any], tower: Mapping[str, Any], family: str, path: Path) -> None:
    """CheckpointError, with the name and the value, for a size, a switch or a small number that no model has.

    Args:
        values: config.json's, in the original's names; ``tower``: its vision tower's; ``path``: that file.
    """
    of_tower = " of its vision tower"
    for name in _SWITCHES:
        if values.get(name) not in (None, True, False):  # 0 and 1 are as good
            raise CheckpointError(f"{path} says {name}: {values[name]!r:.80}, where true or false is needed.")
    for name in _DECODER_SIZES:
        _check_size(values, name, path)
    for name in ("num_key_value_heads", "head_dim"):
        if values.get(name) is not None:
            _check_size(values, name, path)
    if values.get("sliding_window") is not None and (family == "mistral" or values.get("use_sliding_window")):
        _check_size(values, "sliding_window", path)
    for name in _TOWER_SIZES:
        _check_size(tower, name, path, of_tower)
    for each, where in ((values, ""), (tower, of_tower)):
        _check_size(each, "num_hidden_layers", path, where, largest=_MAX_LAYERS)
        _check_heads(each, path, where)
        for name in ("rms_norm_eps", "layer_norm_eps"):
            value = each.get(name, 1e-5)
            if not _is_number(value) or not 0 < value <= _MAX_EPSILON:
                raise CheckpointError(f"{path} says {name}: {value!r:.80}{where}, where a small number is needed.")
    if values.get("tokenizer_model_max_length") is not None:
        _check_size(values, "tokenizer_model_max_length", path, largest=None)
    _check_ids(values, path)
    _check_projector(values, path)
    _check_rope(values, path)


def explain_field(error: Exception, values: Mapping[str, Any]) -> str | None:
    """What of ``values`` a library's check of a configuration refused, as a part of a sentence; None if it is not said.

    Transformers' configurations check the types of their fields; an unknown name is a KeyError of the table that it
    is looked up in.
    """
    of_tower = values.get("mm_vision_config")
    for each, where in ((values, ""), (of_tower if isinstance(of_tower, dict) else {}, " of its vision tower")):
        if isinstance(error, KeyError) and error.args:
            name = next((key for key, value in each.items() if isinstance(value, str) and value == error.args[0]), None)
            if name is not None:
                return f"says {name}: {error.args[0]!r:.80}{where}, which is no known name"
        said = re.match(r"Validation error for field '(\w+)'", str(error))
        if said is not None and said[1] in each and f"(value: {each[said[1]]!r})" in str(error):
            found = re.findall(r"expected (?:a )?(int|float|bool|str|list)\b", str(error))
            needed = " or ".join(dict.fromkeys(_KINDS[kind] for kind in found)) or "something else"
            return f"says {said[1]}: {each[said[1]]!r:.80}{where}, where {needed} is needed"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_size(
    values: Mapping[str, Any], name: str, path: Path, where: str = "", *, largest: int | None = _MAX_SIZE
) -> None:
    if name not in values:
        return
    value = values[name]
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{path} says {name}: {value!r:.80}{where}, where a number of at least 1 is needed.")
    if largest is not None and value > largest:
        raise CheckpointError(
            f"{path} says {name}: {value}{where}, more than any model has: it is damaged, or of another model."
        )


def _check_ids(values: Mapping[str, Any], path: Path) -> None:
    """CheckpointError for tokens that are named by something else than their ids."""
    for name in ("bos_token_id", "eos_token_id"):
        said = values.get(name)
        ids = said if isinstance(said, list) and name == "eos_token_id" else [] if said is None else [said]
        if not all(type(each) is int for each in ids):
            raise CheckpointError(f"{path} says {name}: {said!r:.80}, where the id of a token is needed.")


def _check_heads(values: Mapping[str, Any], path: Path, where: str) -> None:
    """CheckpointError if the width cannot be divided among the heads, or these among those of keys and values."""
    width, heads, shared = (
        int(values.get(name) or 0) for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    if width and heads and not values.get("head_dim") and width % heads:
        raise CheckpointError(
            f"{path} says hidden_size: {width} and num_attention_heads: {heads}{where}, but the one is no multiple of "
            "the other: correct the one that is wrong."
        )
    if heads and shared and heads % shared:
        raise CheckpointError(
            f"{path} says num_attention_heads: {heads} and num_key_value_heads: {shared}{where}, but the one is no "
            "multiple of the other: correct the one that is wrong."
        )


def _check_projector(values: Mapping[str, Any], path: Path) -> None:
    """CheckpointError for more layers than any projector has."""
    numbers = [int(number[:9]) for number in re.findall(r"\d+", str(values.get("mm_projector_type") or ""))]
    if max(numbers, default=0) > _MAX_LAYERS:
        raise CheckpointError(
            f"{path} says mm_projector_type: {values['mm_projector_type']!r:.80}, with more layers than any model "
            "has: it is damaged, or of another model."
        )


def _check_rope(values: Mapping[str, Any], path: Path) -> None:
    """CheckpointError for rotary embeddings that no decoder has."""
    thetas = [(values, "rope_theta")]
    for name in ("rope_scaling", "rope_parameters"):
        scaling = values.get(name)
        if scaling is None:
            continue
        if not isinstance(scaling, dict):
            raise CheckpointError(f"{path} says {name}: {scaling!r:.80}, where a JSON object or null is needed.")
        thetas.append((scaling, "rope_theta"))
        kind = scaling.get("rope_type", scaling.get("type", None if scaling.keys() - {"rope_theta"} else "default"))
        if not isinstance(kind, str) or kind not in _ROPE_NEEDS:
            raise CheckpointError(
                f"{path} says {name}: {scaling!r:.80}, of the rope_type {kind!r:.80}; known are "
                f"{', '.join(_ROPE_NEEDS)}."
            )
        for need in _ROPE_NEEDS[kind]:
            value: Any = scaling.get(need)
            if not (isinstance(value, list) if need in _ROPE_LISTS else _is_number(value) and value > 0):
                what = "a list" if need in _ROPE_LISTS else "a number above 0"
                raise CheckpointError(f"{path} says {need}: {value!r:.80} in {name}, where {kind} needs {what}.")
    for each, name in thetas:
        theta = each.get(name, 10000.0)
        if not _is_number(theta) or theta < 1:
            raise CheckpointError(f"{path} says {name}: {theta!r:.80}, where a number of at least 1 is needed.")
