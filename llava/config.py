"""``ModelSpec``: what a checkpoint is, read from its config.json in either layout.

``read_spec`` turns the original's config.json (``model_type`` llava, llava_llama, llava_mistral, llava_qwen) and the
llava-hf one (``text_config`` and ``vision_config``) into one ``ModelSpec``. The file decides, never the folder's name,
and no code that it names is ever run: keys that point at code are dropped while reading. Loads no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.dimensions import check_dimensions
from llava.errors import CheckpointError, LlavaError
from llava.image.geometry import RELEASED_PINPOINTS, Tiling, scale_grids
from llava.towers import (
    KNOWN_TOWERS,
    TOWER_DEFAULTS,
    complete_tower,
    find_position_range,
    is_lexical,
    is_siglip,
    is_squashing,
    name_tower,
)

# The released checkpoints say "llava" and mean Llama; the class name in `architectures` is more exact.
_FAMILY_OF_TYPE = {
    "llava": "llama",
    "llava_llama": "llama",
    "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
}
_FAMILY_OF_CLASS = {
    "LlavaLlamaForCausalLM": "llama",
    "LlavaMistralForCausalLM": "mistral",
    "LlavaQwenForCausalLM": "qwen2",
}
_HF_TYPES = ("llava", "llava_next", "llava_onevision")
_HF_CLASSES = (
    "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
)

# In a llava-hf checkpoint that ``llava convert`` wrote: the values of the original's config.json that llava-hf's layout
# cannot express, such as image_aspect_ratio "pad", and those that were changed for it, such as vocab_size.
ORIGINAL_KEY = "llava_original"

# Used where config.json leaves a size out, as it may.
# Source: transformers 5.23 LlamaConfig, MistralConfig, Qwen2Config.
_FAMILY_DEFAULTS: dict[str, dict[str, int]] = {
    "llama": {"hidden_size": 4096, "vocab_size": 32000, "max_position_embeddings": 2048},
    "mistral": {"hidden_size": 4096, "vocab_size": 32000, "max_position_embeddings": 131072},
    "qwen2": {"hidden_size": 4096, "vocab_size": 151936, "max_position_embeddings": 32768},
}

_ONEVISION_GRIDS = tuple((rows, columns) for rows in range(1, 7) for columns in range(1, 7))

# s2_scales of a multi-scale tower, in px. Source: haotian-liu/LLaVA@c121f04 clip_encoder.py.
DEFAULT_SCALES = "336,672,1008"

# Keys with which a config.json makes a library import or download code. Keys that begin with "_" are dropped as well,
# except _name_or_path, which only names the model that this one was made from.
_CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "attn_implementation", "experts_implementation"})

_MAX_JSON_BYTES = 500_000_000  # the largest JSON file of a released model, a tokenizer.json, has 35 MB


@dataclass(frozen=True)
class ModelSpec:
    """What a checkpoint is, as its files say. Sizes of tiles, in px, are in ``tiling``."""

    family: str  # "llama", "mistral" or "qwen2"
    layout: str  # "original" or "hf": how config.json is written and tensors are named
    tower: str  # a folder or a hub id; "" if the checkpoint names none because its tower is inside
    tower_config: dict[str, Any] = field(repr=False)  # the values of the tower's configuration, complete
    tiling: Tiling
    scales: tuple[int, ...]  # the sizes in px at which the tower encodes a tile: one, or several with s2
    select_layer: int
    select_feature: str  # "patch" or "cls_patch"
    projector_type: str
    tower_hidden_size: int
    hidden_size: int
    vocab_size: int
    context_tokens: int  # how many positions the decoder can address; see `read_spec`
    template: str | None  # the conversation template, if config.json names one
    dtype: str | None  # the dtype of the stored weights according to config.json: "float16", "bfloat16", "float32"
    config: dict[str, Any] = field(repr=False)  # all values, under the original's names
    raw: dict[str, Any] = field(repr=False)  # all values as the file has them, without the keys that name code


def read_config_dict(folder: str | Path) -> dict[str, Any]:
    """The folder's config.json as a dict, without any key that names code. Raises CheckpointError."""
    path = Path(folder) / "config.json"
    return check_config_dict(read_json(path), path)


def check_config_dict(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The values of the config.json at ``path`` without any key that names code.

    Raises:
        CheckpointError: it describes quantized weights.
    """
    values = _drop_code_keys(values)
    if "quantization_config" in values:
        method = _get_dict(values, "quantization_config").get("quant_method", "unknown method")
        raise CheckpointError(
            f"{path} describes quantized weights ({method}), which cannot be loaded. "
            "Use the 16-bit checkpoint; load_8bit and load_4bit quantize while loading."
        )
    return values


@contextlib.contextmanager
def as_checkpoint_error(fault: str, *let_through: type[Exception]) -> Iterator[None]:
    """Turns any exception that a library raises about a file into a CheckpointError that begins with ``fault``.

    LlavaErrors and the exceptions in ``let_through`` pass unchanged.
    """
    kept: tuple[type[Exception], ...] = (LlavaError, *let_through)
    try:
        yield
    except kept:
        raise
    except Exception as error:  # libraries raise any type for malformed input
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{fault} ({type(error).__name__}: {reason:.300}).") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. Raises CheckpointError, naming the file and what is wrong with it."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe or a device would never end
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise CheckpointError(f"{path} is {kind}, where a JSON file is needed. Copy or download it again.")
    try:
        if (size := path.stat().st_size) > _MAX_JSON_BYTES:
            raise CheckpointError(f"{path} has {size:,} bytes; the limit for a JSON file is {_MAX_JSON_BYTES:,}.")
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(values, ensure_ascii=False).encode()  # fails for a lone surrogate
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}: it is not a checkpoint, or not complete.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(values, dict):
        kinds = {"NoneType": "null", "str": "a string", "bool": "a boolean", "list": "a list"}
        what = kinds.get(type(values).__name__, "a number")
        raise CheckpointError(f"{path} contains {what}, where a JSON object is needed.")
    return values


_NAMES = (
    *("conversation_template", "mm_vision_tower", "vision_tower", "image_aspect_ratio", "mm_patch_merge_type"),
    *("mm_projector_type", "mm_vision_select_feature", "dtype", "torch_dtype"),
)


def check_names(values: Mapping[str, Any], path: Path) -> None:
    """Raises CheckpointError for a value of config.json that has to be a name and is not a string."""
    for name in _NAMES:
        if isinstance(values.get(name), (bool, int, float, list, dict)):
            raise CheckpointError(f"{path} says {name}: {values[name]!r:.80}, where a name is needed.")


def read_spec(
    folder: str | Path, *, tower_folder: Path | None = None, config: Mapping[str, Any] | None = None
) -> ModelSpec:
    """The ``ModelSpec`` of the checkpoint in ``folder``.

    Args:
        tower_folder: the folder of the vision tower's config.json, if the caller knows it (say, in the hub's cache);
            by default ``find_tower_folder`` finds it.
        config: used instead of the folder's config.json, which is not read then.

    ``context_tokens`` is ``max_sequence_length`` if the file has it, else ``max_position_embeddings``: how many
    positions the decoder can address. The original truncates at ``tokenizer_model_max_length`` (2048 for LLaVA-1.5),
    the length that LLaVA was trained with; its Vicuna-1.5 was trained with 4096, so prompts in between do work.

    Raises:
        CheckpointError: config.json does not describe a LLaVA that is supported, or lacks a value that is needed.
    """
    with as_checkpoint_error(f"{Path(folder) / 'config.json'} cannot be used"):
        return _read_spec(Path(folder), tower_folder, config)


def _read_spec(folder: Path, tower_folder: Path | None, config: Mapping[str, Any] | None) -> ModelSpec:
    path = folder / "config.json"
    raw = read_config_dict(folder) if config is None else _drop_code_keys(dict(config))
    is_hf = isinstance(raw.get("text_config"), dict) and isinstance(raw.get("vision_config"), dict)
    family = _find_family(raw, path, is_hf)
    values = _to_original(raw, path) if is_hf else dict(raw)
    check_names(values, path)
    if values.get("mm_patch_merge_type", "flat") is None:  # null means the default
        values["mm_patch_merge_type"] = "flat"
    _fit_lexical(values, path)
    _refuse_unsupported(values, path)
    tower = str(values.get("mm_vision_tower") or values.get("vision_tower") or "")
    tower_config = _describe_tower(tower, values, folder, tower_folder)
    check_dimensions(values, tower_config, family, path)
    defaults = _FAMILY_DEFAULTS[family]
    longest = "max_sequence_length" if values.get("max_sequence_length") else "max_position_embeddings"
    dtype = values.get("dtype") or values.get("torch_dtype")
    scales, tiling = _describe_tiling(values, tower_config, path)
    return ModelSpec(
        family=family,
        layout="hf" if is_hf else "original",
        tower=tower,
        tower_config=tower_config,
        tiling=tiling,
        scales=scales,
        select_layer=values["mm_vision_select_layer"],
        select_feature=values.get("mm_vision_select_feature", "patch"),
        projector_type=values.get("mm_projector_type", "linear"),
        tower_hidden_size=_get_int(values, "mm_hidden_size", path, default=tower_config["hidden_size"] * len(scales)),
        hidden_size=_get_int(values, "hidden_size", path, default=defaults["hidden_size"]),
        vocab_size=_get_int(values, "vocab_size", path, default=defaults["vocab_size"]),
        context_tokens=_get_int(values, longest, path, default=defaults["max_position_embeddings"]),
        template=values.get("conversation_template"),
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        config=values,
        raw=raw,
    )


def _describe_tower(tower: str, values: dict[str, Any], folder: Path, tower_folder: Path | None) -> dict[str, Any]:
    """The tower's configuration; puts it, and which of its features are selected, into ``values``."""
    path = folder / "config.json"
    is_described = values.get("mm_vision_config") is not None
    if not tower and not is_described:
        raise CheckpointError(
            f"{path} names no vision tower: mm_vision_tower is missing. "
            "A language model alone cannot see images; name the LLaVA checkpoint that was made from it."
        )
    values["mm_vision_config"] = tower_config = _find_tower_config(tower, values, folder, tower_folder)
    if is_siglip(tower_config):
        # SigLIP has no CLS position to select, and LLaVA-NeXT reads its SigLIP towers at layer -2 whatever config.json
        # says, unless config.json describes the tower as well.
        values["mm_vision_select_feature"] = "patch"
        values["mm_vision_select_layer"] = values["mm_vision_select_layer"] if is_described else -2
    num_blocks = _get_int(tower_config, "num_hidden_layers", path, default=TOWER_DEFAULTS["num_hidden_layers"])
    if not -num_blocks - 1 <= values["mm_vision_select_layer"] <= num_blocks:
        raise CheckpointError(
            f"{path} says mm_vision_select_layer: {values['mm_vision_select_layer']}, "
            f"but the vision tower has {num_blocks} layers."
        )
    return tower_config


def _describe_tiling(
    values: Mapping[str, Any], tower_config: Mapping[str, Any], path: Path
) -> tuple[tuple[int, ...], Tiling]:
    """The sizes in px at which the tower encodes a tile, and how an image is cut into tiles."""
    tile_px = _get_int(tower_config, "image_size", path, default=TOWER_DEFAULTS["image_size"])
    patch_px = _get_int(tower_config, "patch_size", path, default=TOWER_DEFAULTS["patch_size"])
    scales = _find_scales(values, path, tile_px)
    try:
        # A feature covers as large a part of the largest scale as a patch covers of the smallest.
        return scales, Tiling.from_config(
            values,
            tile_px=scales[-1],
            patch_px=patch_px * (scales[-1] // scales[0]),
            squashes=is_squashing(tower_config),
            position_range=find_position_range(tower_config),
        )
    except LlavaError as error:
        raise CheckpointError(f"{path}: {error}") from error


def find_tower_folder(name: str, checkpoint_folder: str | Path) -> Path | None:
    """The tower's folder, if ``name`` is the path of one: relative to the current directory or to the checkpoint's.

    None if there is no config.json at either.
    """
    for candidate in (Path(os.path.expanduser(name)), Path(checkpoint_folder) / name):
        if name and os.path.isfile(candidate / "config.json"):
            return candidate
    return None


def read_tower_config(folder: Path) -> dict[str, Any]:
    """The vision tower's configuration in a folder; for a complete CLIP or SigLIP, the vision half's.

    Raises CheckpointError.
    """
    values = read_config_dict(folder)
    if values.get("model_type") in ("clip", "siglip"):
        # Old files have the values twice. Transformers, too, prefers vision_config_dict.
        kind = f"{values['model_type']}_vision_model"
        values = {**_get_dict(values, "vision_config"), **(values.get("vision_config_dict") or {}), "model_type": kind}
    elif "model_type" not in values:
        raise CheckpointError(f"{folder / 'config.json'} does not say what it describes: model_type is missing.")
    return complete_tower(values)


def _find_tower_config(
    tower: str, values: Mapping[str, Any], folder: Path, tower_folder: Path | None
) -> dict[str, Any]:
    given = values.get("mm_vision_config")
    if given is not None:
        return complete_tower(_get_dict(values, "mm_vision_config"))
    tower_folder = tower_folder or find_tower_folder(tower, folder)
    if tower_folder is not None:
        return read_tower_config(tower_folder)
    if tower in KNOWN_TOWERS:
        return complete_tower(KNOWN_TOWERS[tower])
    raise CheckpointError(
        f"{folder / 'config.json'} names the vision tower '{tower}', which is not a folder with a config.json "
        f"(relative to the current directory, or to {folder}). Set mm_vision_tower to the tower's folder, "
        "or download the tower from the hub."
    )


def _find_family(raw: Mapping[str, Any], path: Path, is_hf: bool) -> str:
    kind = str(raw.get("model_type"))
    classes = raw.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(f"{path} says architectures: {classes!r}, where a list of names is needed.")
    if is_hf:
        usual = "qwen2" if kind == "llava_onevision" else "llama"
        family = str(_get_dict(raw, "text_config").get("model_type", usual))
        if family in _FAMILY_DEFAULTS and (kind in _HF_TYPES or set(classes) & set(_HF_CLASSES)):
            return family
        raise CheckpointError(
            f"{path} describes a '{kind}' model with a '{family}' decoder; in the llava-hf layout, "
            f"{', '.join(_HF_TYPES)} with {', '.join(_FAMILY_DEFAULTS)} are supported."
        )
    for name in classes:
        if name in _FAMILY_OF_CLASS:
            family = _FAMILY_OF_CLASS[name]
            if kind != "llava" and _FAMILY_OF_TYPE.get(kind, family) != family:
                raise CheckpointError(
                    f"{path} says model_type: {kind!r}, which is a {_FAMILY_OF_TYPE[kind]}, but architectures: "
                    f"{classes!r}, which is a {family}: correct the one that is wrong."
                )
            return family
    # "llava" with an unknown class is some other model; "llava" without any class means Llama.
    if kind in _FAMILY_OF_TYPE and (kind != "llava" or not classes):
        return _FAMILY_OF_TYPE[kind]
    raise CheckpointError(
        f"{path} does not describe a supported LLaVA model: model_type is {kind!r}, architectures is {classes!r}. "
        f"Supported are {', '.join(_FAMILY_OF_CLASS)} and llava-hf's {', '.join(_HF_CLASSES)}."
    )


def _to_original(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """llava-hf's config.json under the original's names.

    Pinpoints are (height, width) there and become (width, height). The values that ``llava convert`` kept of the
    original's config.json are used unless another value here, or the way Transformers works, contradicts them.

    Source: transformers 5.23 models/{llava,llava_next,llava_onevision} configuration and modeling.
    """
    kept = _get_dict(raw, ORIGINAL_KEY) if ORIGINAL_KEY in raw else {}
    values = {**kept, **_get_dict(raw, "text_config")}
    for name in ("dtype", "torch_dtype", "tie_word_embeddings", "pad_token_id", "conversation_template"):
        if raw.get(name) is not None:
            values[name] = raw[name]
    is_onevision = raw.get("model_type") == "llava_onevision"
    strategy = raw.get("vision_feature_select_strategy", "full" if is_onevision else "default")
    select_feature = {"default": "patch", "full": "cls_patch"}.get(str(strategy))
    activation = raw.get("projector_hidden_act", "gelu")
    layer = raw.get("vision_feature_layer", -1 if is_onevision else -2)
    if select_feature is None or activation != "gelu" or isinstance(layer, list):
        raise CheckpointError(
            f"{path} asks for the vision features of layer {layer} with the strategy {strategy!r} and a projector with "
            f"{activation!r}; supported are a single layer, 'default' or 'full', and 'gelu'."
        )
    if raw.get("multimodal_projector_bias", True) is not True:
        raise CheckpointError(f"{path} describes a projector without bias, which is not supported.")
    tower = complete_tower(_get_dict(raw, "vision_config"))
    if is_siglip(tower) and strategy != "full":
        raise CheckpointError(
            f"{path} says vision_feature_select_strategy: {strategy!r}, which drops the CLS position, but a "
            "SigLIP tower has none, so a patch would be lost: set it to 'full'."
        )
    is_next = is_onevision or raw.get("model_type") == "llava_next" or "image_grid_pinpoints" in raw
    aspect = str(raw.get("vision_aspect_ratio", "anyres_max_9")) if is_onevision else "anyres"
    values.update(
        mm_vision_config=tower,
        # The original needs a name here even if the tower is inside.
        mm_vision_tower=kept.get("mm_vision_tower") or name_tower(tower),
        mm_vision_select_layer=layer,
        mm_vision_select_feature=select_feature,
        mm_projector_type="mlp2x_gelu",
        mm_use_im_start_end=bool(kept.get("mm_use_im_start_end")),
        mm_use_im_patch_token=False,
        image_aspect_ratio=aspect if is_next else "pad" if kept.get("image_aspect_ratio") == "pad" else "square",
        mm_patch_merge_type="spatial_unpad" if is_next else "flat",
        mm_tiling_dialect="hf",
    )
    if is_onevision:  # video frames are pooled to half their side, and one newline ends the video
        values.update(mm_spatial_pool_mode="bilinear", mm_newline_position="one_token")
    if is_next:
        # Transformers' defaults: the released pinpoints for LlavaNextConfig, read as (height, width), and every grid up
        # to 6x6 for LlavaOnevisionConfig.
        usual: Sequence[Any] = scale_grids(_ONEVISION_GRIDS, 384) if is_onevision else RELEASED_PINPOINTS
        pinpoints = raw.get("image_grid_pinpoints") or usual
        try:
            values["image_grid_pinpoints"] = [[width, height] for height, width in pinpoints]
        except (TypeError, ValueError):
            raise CheckpointError(
                f"{path} says image_grid_pinpoints: {pinpoints!r:.80}, where a list of (height, width) is needed."
            ) from None
    return values


def _fit_lexical(values: dict[str, Any], path: Path) -> None:
    """Raises CheckpointError unless a lexical tower and its projector are together. Neither has layers to select."""
    tower = values.get("mm_vision_config")
    kinds = isinstance(tower, dict) and is_lexical(tower), values.get("mm_projector_type") == "lexical"
    if any(kinds):
        values.setdefault("mm_vision_select_layer", -1)
        values.setdefault("mm_projector_type", "lexical")
        merge = values.get("mm_patch_merge_type", "flat")
        if not all(kinds) or merge != "flat":
            raise CheckpointError(
                f"{path} describes {'a lexical vision tower' if kinds[0] else 'another vision tower'} with "
                f"mm_projector_type: {values['mm_projector_type']!r} and mm_patch_merge_type: {merge!r}; a lexical "
                "tower needs 'lexical' and 'flat', and no other tower can have that projector."
            )


def _refuse_unsupported(values: Mapping[str, Any], path: Path) -> None:
    layer = values.get("mm_vision_select_layer")
    if type(layer) is not int:
        raise CheckpointError(f"{path} says mm_vision_select_layer: {layer!r}, where the number of a layer is needed.")
    if values.get("mm_resampler_type"):
        raise CheckpointError(f"{path} names the resampler {values['mm_resampler_type']!r}, which is not supported.")
    feature = values.get("mm_vision_select_feature", "patch")
    if feature not in ("patch", "cls_patch"):
        raise CheckpointError(f"{path} says mm_vision_select_feature: {feature!r}; supported are patch and cls_patch.")
    aspect = values.get("image_aspect_ratio") or "square"
    if not re.fullmatch(r"square|pad|anyres.*|highres|crop_split", str(aspect)):
        raise CheckpointError(
            f"{path} says image_aspect_ratio: {aspect!r:.80}; supported are square, pad, anyres and anyres_max_N."
        )
    projector = values.get("mm_projector_type", "linear")
    if not re.fullmatch(r"linear|identity|lexical|mlp[1-9]\d*x_(res\d+x_)?gelu", str(projector)):
        raise CheckpointError(
            f"{path} says mm_projector_type: {projector!r}; supported are linear, identity, mlp2x_gelu (any depth), "
            "mlp2x_res1x_gelu and lexical."
        )


def _find_scales(values: Mapping[str, Any], path: Path, tile_px: int) -> tuple[int, ...]:
    """The sizes in px at which the tower encodes a tile, smallest first; without ``s2`` only ``tile_px``."""
    if not values.get("s2"):
        return (tile_px,)
    if is_squashing(values["mm_vision_config"]):
        raise CheckpointError(
            f"{path} says s2: true, but its vision tower is not CLIP's: only CLIP towers can be multi-scale."
        )
    said = values.get("s2_scales", DEFAULT_SCALES)
    numbers = str(said).split(",")
    scales = tuple(sorted(int(number) for number in numbers if number.strip().isdecimal()))
    if len(scales) < len(numbers) or scales[0] != tile_px or any(side % tile_px for side in scales):
        raise CheckpointError(
            f"{path} says s2_scales: {said!r}; it has to list multiples of the vision tower's {tile_px} px, "
            f"separated by commas and beginning with {tile_px}."
        )
    if str(values.get("image_aspect_ratio", "")).startswith("anyres"):
        raise CheckpointError(
            f"{path} says s2: true and image_aspect_ratio: {values['image_aspect_ratio']!r}, but a multi-scale tower "
            "takes images of one tile (pad, square)."
        )
    return scales


def _drop_code_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without the keys that name code, at any depth; see ``_CODE_KEYS``."""
    return {
        key: _drop_code_keys(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in _CODE_KEYS and (key == "_name_or_path" or not str(key).startswith("_"))
    }


def _get_dict(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = values.get(name)
    if not isinstance(value, dict):
        raise CheckpointError(f"In config.json, {name} is {value!r}, where a JSON object is needed.")
    return value


def _get_int(values: Mapping[str, Any], name: str, path: Path, default: int) -> int:
    value = values.get(name)
    if value is None:
        return int(default)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{path} says {name}: {value!r:.80}, where a number of at least 1 is needed.")
    return value
