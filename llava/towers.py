"""The known vision towers with their configurations, and how other towers are recognized by name. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError

# The configurations of the released checkpoints' towers, so that a checkpoint that names one needs no network.
# Source: vision_config of the config.json of OpenAI's two repositories, completed by CLIPVisionConfig's defaults.
_CLIP_L_14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
# Source: vision_config of google/siglip-{base,large,so400m}-* and of the fixed-resolution google/siglip2-*.
_SIGLIP_SIZES = {"base": (768, 3072, 12, 12), "large": (1024, 4096, 24, 16), "so400m": (1152, 4304, 27, 16)}
_SIGLIP_TOWERS = {
    "siglip": ["base-16-224", "base-16-256", "base-16-384", "base-16-512", "large-16-256", "large-16-384"],
    "siglip2": ["base-16-224", "base-16-256", "base-16-384", "base-16-512", "large-16-256", "large-16-384"],
}
_SIGLIP_TOWERS["siglip"] += ["so400m-14-224", "so400m-14-384"]
_SIGLIP_TOWERS["siglip2"] += ["large-16-512", "so400m-14-224", "so400m-14-384"]
_SIGLIP_TOWERS["siglip2"] += ["so400m-16-256", "so400m-16-384", "so400m-16-512"]


def _describe_siglip(size: str, patch_px: str, image_px: str) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = dict(zip(names, _SIGLIP_SIZES[size], strict=True))
    return {"model_type": "siglip_vision_model", **sizes, "patch_size": int(patch_px), "image_size": int(image_px)}


KNOWN_TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14-336": {**_CLIP_L_14, "image_size": 336},
    "openai/clip-vit-large-patch14": {**_CLIP_L_14, "image_size": 224},
    **{
        f"google/{kind}-{size}-patch{patch_px}-{image_px}": _describe_siglip(size, patch_px, image_px)
        for kind, towers in _SIGLIP_TOWERS.items()
        for size, patch_px, image_px in (tower.split("-") for tower in towers)
    },
}

_CLIP_KINDS = ("clip_vision_model", "clip")
LEXICAL_KIND = "lexical_vision_model"
_SIGLIP_KINDS = ("siglip_vision_model", "siglip")
# Towers of other LLaVAs that are not supported, by patterns of their names.
_FOREIGN_TOWERS = (
    (r"naflex", "a SigLIP2 of variable resolution (NaFlex)"),
    (r"eva[-_]?0?2?[-_]?clip|internal-eva|eva02", "an EVA-CLIP"),
    (r"intern[-_]?vi(t|deo)", "an InternViT"),
    (r"open_clip|convnext|^timm", "an OpenCLIP or timm tower"),
    (r"dino", "a DINO"),
    (r"imagebind", "ImageBind"),
    (r"mlcd", "an MLCD"),
    (r"aimv2", "an AIMv2"),
    (r"radio", "a RADIO"),
    (r"^pe-(core|lang|spatial)", "a Perception Encoder"),
    (r"(^|[-_])sam([-_]|$)", "a SAM"),
)

# Source: transformers 5.23 CLIPVisionConfig, SiglipVisionConfig.
TOWER_DEFAULTS = {"hidden_size": 768, "num_hidden_layers": 12, "image_size": 224, "patch_size": 32}
_SIGLIP_DEFAULTS = {
    **_describe_siglip("base", "16", "224"),
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
# A lexical tower's features are rows of three labels, EfficientNet-lite's features and class logits, and an RGB mean.
# ``max_words``: how many tokens the text about an image may have; ``colours``: the means that a thing's colour is;
# ``guesses``: whether the text begins with what EfficientNet takes the image for; ``faces``: whether faces are found.
_LEXICAL_DEFAULTS: dict[str, Any] = {
    "image_size": 384,
    "hidden_size": 3 + 1280 + 1000 + 3,
    "num_hidden_layers": 1,
    "max_words": 400,
    "colours": "rgb",
    "guesses": False,
    "faces": False,
    "things_config": {},
    "reader_config": {},
    "objects_config": {},
}
LEXICAL_COLOURS = ("rgb", "contrast")
# The sizes of EfficientNet-lite that ``things_config`` may name as its ``size``.
LEXICAL_EYES = ("lite0", "lite1", "lite2", "lite3", "lite4")
# Rows for the whole image, and for the cells of a 3x3 grid.
LEXICAL_WHOLE, LEXICAL_CELLS = 6, 9


def complete_tower(values: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's configuration with defaults for missing values. Raises CheckpointError for an unsupported kind."""
    kind = values.get("model_type") or "clip_vision_model"
    if kind in _SIGLIP_KINDS:
        return {**_SIGLIP_DEFAULTS, **values, "model_type": "siglip_vision_model"}
    if kind == LEXICAL_KIND:
        return _complete_lexical({**_LEXICAL_DEFAULTS, **values})
    if kind not in _CLIP_KINDS:
        what = describe_foreign_tower(str(kind))
        raise CheckpointError(
            f"A vision tower of the kind '{kind}'{f' ({what})' if what else ''} is not supported; supported are CLIP's "
            "and SigLIP's (of SigLIP2 those of a fixed resolution)."
        )
    return {**TOWER_DEFAULTS, **values}


def _complete_lexical(values: Mapping[str, Any]) -> dict[str, Any]:
    most = values["max_words"]
    if type(most) is not int or not 0 <= most <= 100_000:
        raise CheckpointError(f"The vision tower's max_words is {most!r:.80}; it has to be a number from 0 to 100000.")
    if values["colours"] not in LEXICAL_COLOURS:
        raise CheckpointError(
            f"The vision tower's colours is {values['colours']!r:.80}; it has to be {' or '.join(LEXICAL_COLOURS)}."
        )
    for name in ("guesses", "faces"):
        if type(values[name]) is not bool:
            raise CheckpointError(f"The vision tower's {name} is {values[name]!r:.80}; it has to be true or false.")
    for name in ("things_config", "reader_config", "objects_config"):
        if not isinstance(values[name], Mapping):
            raise CheckpointError(f"The vision tower's {name} is {values[name]!r:.80}; it has to be a JSON object.")
    size = values["things_config"].get("size", LEXICAL_EYES[0])
    if size not in LEXICAL_EYES:
        known = ", ".join(LEXICAL_EYES)
        raise CheckpointError(
            f"The size in the vision tower's things_config is {size!r:.80}; it has to be one of {known}."
        )
    # It has no patches; drawings of its tiles have such cells.
    side = values["image_size"]
    return {**values, "patch_size": max(1, side // 12) if type(side) is int else side}


def is_lexical(tower_config: Mapping[str, Any]) -> bool:
    """Whether a tower is the lexical one, which puts what it reads into words."""
    return tower_config.get("model_type") == LEXICAL_KIND


def is_squashing(tower_config: Mapping[str, Any]) -> bool:
    """Whether a tower's image processor squashes an image to its single tile instead of cropping its centre."""
    return is_siglip(tower_config) or is_lexical(tower_config)


def find_position_range(tower_config: Mapping[str, Any]) -> tuple[int, int] | None:
    """The fewest and the most positions of an image, if they follow from what the tower reads in it; else None.

    ``tower_config`` is complete.
    """
    if not is_lexical(tower_config):
        return None
    fewest = LEXICAL_WHOLE + LEXICAL_CELLS
    return fewest, fewest + int(tower_config["max_words"])


def is_siglip(tower_config: Mapping[str, Any], name: str = "") -> bool:
    """Whether a tower is SigLIP's, by its configuration, or by its name if that has no ``model_type``."""
    kind = tower_config.get("model_type")
    return kind in _SIGLIP_KINDS if kind else "siglip" in name.lower() and describe_foreign_tower(name) is None


def describe_foreign_tower(name: str) -> str | None:
    """The kind of an unsupported tower by its name, such as "an InternViT"; None if the name is not recognized."""
    own_name = name.rstrip("/").lower()
    if not own_name.startswith("timm/"):
        own_name = own_name.rpartition("/")[2]
    return next((what for pattern, what in _FOREIGN_TOWERS if re.search(pattern, own_name)), None)


def refuse_foreign_tower(name: str, path: Path) -> None:
    """Raises CheckpointError if this name, which is not a folder, is that of an unsupported tower."""
    what = describe_foreign_tower(name)
    if what is not None:
        raise CheckpointError(
            f"{path} names the vision tower '{name}', which is {what}. Supported are CLIP's and SigLIP's (of SigLIP2 "
            "those of a fixed resolution)."
        )


def name_tower(tower: Mapping[str, Any]) -> str:
    """The hub id of a known tower with these sizes; "" if there is none."""
    sizes = dict(tower)
    if is_siglip(tower):
        # llava-hf stores it without the last block, which LLaVA-NeXT does not run either.
        whole = {12: 12, 11: 12, 24: 24, 23: 24, 27: 27, 26: 27}
        sizes["num_hidden_layers"] = whole.get(tower["num_hidden_layers"], 0)
    return next((name for name, known in KNOWN_TOWERS.items() if known.items() <= sizes.items()), "")
