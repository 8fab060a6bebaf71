"""The descriptive files of a checkpoint, from the metadata of its two GGUF files: config.json and those beside it.

What llama.cpp's metadata cannot express (which layer of the tower is read, "square" against "pad", the template by
name), ``llava convert`` keeps in two keys of its own, ``llava.config`` and ``llava.generation_config``: the values that
differ from what would be concluded without them. llama.cpp ignores them.

Files of others: a tower without ``clip.vision.feature_layer`` was written by llama.cpp's older converter, which leaves
out the blocks after the layer that is read, so all that are there are run; only a CLIP-L with all of its 24 blocks is
read at LLaVA's layer -2. Images of LLaVA-1.5 are padded to a square, as llama.cpp does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llava.model.gguf.gguf_file import GgufFault, Header
from llava.towers import name_tower

KEPT_CONFIG = "llava.config"
KEPT_GENERATION = "llava.generation_config"
_DECIDED_BY_TENSORS = "torch_dtype"

_KINDS = {"llama": ("llava_llama", "LlavaLlamaForCausalLM"), "qwen2": ("llava_qwen", "LlavaQwenForCausalLM")}
_AGAIN = "Use the mmproj that was made for this model."
_CLIP_L_BLOCKS, _CLIP_L_WIDTH = 24, 1024
_NEWLINES = ("model.image_newline", "v.image_newline")
# Words of a chat template, in Jinja or in Ollama's language, that only one of our templates has. In this order.
_TEMPLATE_MARKS = (
    (r"<\|start_header_id\|>", "llava_llama_3"),
    (r"<start_of_turn>", "gemma_instruct"),
    (r"named SmolLM, trained by Hugging Face", "smollm2"),
    (r"<\|im_start\|>", "chatml_direct"),
    (r"<<SYS>>", "llava_llama_2"),
    (r"\[INST\]", "mistral_instruct"),
    (r"USER:[\s\S]*ASSISTANT:", "llava_v1"),
    (r"### Human:", "llava_v0"),
)


def describe_llava(text: Header, vision: Header, template: str | None = None) -> dict[str, Any]:
    """The values of config.json, in the original's layout.

    Args:
        text: the language model's file.
        vision: the mmproj.
        template: a chat template that is known from elsewhere, such as Ollama's.

    Raises:
        GgufFault: it is no LLaVA, or a value is missing or of the wrong type. The file and the key are named.
    """
    values = {**_describe_decoder(text), **_describe_vision(text, vision)}
    chosen = template_for(template, values["model_type"]) or template_for(
        text.get("tokenizer.chat_template", str), values["model_type"]
    )
    if chosen is not None:
        values["conversation_template"] = chosen
    values["_name_or_path"] = text.get("general.name", str, "")
    return _apply_kept(text, KEPT_CONFIG, values)


def describe_generation(text: Header) -> dict[str, Any]:
    """The values of generation_config.json. Raises GgufFault."""
    ids = {name: text.get(f"tokenizer.ggml.{name}_token_id", int) for name in ("bos", "eos", "padding", "eot")}
    ends = [end for end in (ids["eos"], ids["eot"]) if end is not None]
    ends = list(dict.fromkeys(ends))
    values = {
        "bos_token_id": ids["bos"],
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": ids["padding"],
    }
    return _apply_kept(text, KEPT_GENERATION, values)


def describe_processor(vision: Header) -> dict[str, Any]:
    """The values of preprocessor_config.json: CLIP's steps with the file's size, mean and standard deviation."""
    side = vision.need("clip.vision.image_size", int)
    values: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    for name in ("image_mean", "image_std"):
        numbers = vision.get_array(f"clip.vision.{name}", float, size=3)
        if numbers is None:
            raise GgufFault(f"{vision.path} lacks the metadata clip.vision.{name}.", _AGAIN)
        values[name] = [float(f"{number:.8g}") for number in numbers]
    return values


def keep_differences(wanted: Mapping[str, Any], concluded: Mapping[str, Any]) -> str:
    """The JSON text for KEPT_CONFIG or KEPT_GENERATION with which ``wanted`` is read instead of ``concluded``."""
    wanted = {key: value for key, value in wanted.items() if key != _DECIDED_BY_TENSORS}
    values = {key: value for key, value in wanted.items() if key not in concluded or concluded[key] != value}
    return json.dumps({"values": values, "absent": sorted(concluded.keys() - wanted.keys() - {_DECIDED_BY_TENSORS})})


def _apply_kept(text: Header, key: str, values: dict[str, Any]) -> dict[str, Any]:
    said = text.get(key, str)
    if said is None:
        return values
    try:
        kept = json.loads(said)
        changes, absent = dict(kept["values"]), set(kept["absent"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise GgufFault(f"{text.path} has damaged metadata {key} ({error}).", "Convert the model again.") from error
    return {name: value for name, value in {**values, **changes}.items() if name not in absent}


def template_for(written: str | None, model_type: str) -> str | None:
    """The name of the conversation template whose marks a chat template has; None if it has none of them."""
    if not written:
        return None
    found = next((name for pattern, name in _TEMPLATE_MARKS if re.search(pattern, written)), None)
    return "qwen_1_5" if found == "chatml_direct" and model_type == "llava_qwen" else found


def _describe_decoder(text: Header) -> dict[str, Any]:
    kind = text.architecture
    if kind not in _KINDS:
        raise GgufFault(
            f"{text.path} is a language model of the architecture {kind!r:.60}; supported are "
            f"{', '.join(_KINDS)} (Llama, Vicuna, Mistral, Yi; Qwen 1.5 and 2).",
            "llama.cpp itself runs others.",
        )
    model_type, class_name = _KINDS[kind]
    num_heads = text.need(f"{kind}.attention.head_count", int)
    width = text.need(f"{kind}.embedding_length", int)
    embeddings = text.tensors.get("token_embd.weight")
    dtype = {0: "float32", 30: "bfloat16"}.get(embeddings.kind if embeddings else -1, "float16")
    values = {
        "model_type": model_type,
        "architectures": [class_name],
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": text.need(f"{kind}.feed_forward_length", int),
        "num_hidden_layers": text.need(f"{kind}.block_count", int),
        "num_attention_heads": num_heads,
        "num_key_value_heads": text.get(f"{kind}.attention.head_count_kv", int, num_heads),
        "max_position_embeddings": text.need(f"{kind}.context_length", int),
        "rms_norm_eps": text.need(f"{kind}.attention.layer_norm_rms_epsilon", float),
        "vocab_size": embeddings.shape[0] if embeddings and embeddings.shape else text.need(f"{kind}.vocab_size", int),
        "tie_word_embeddings": "output.weight" not in text.tensors,
        "torch_dtype": dtype,
        "use_cache": True,
        **_describe_rope(text, kind),
        **{f"{name}_token_id": text.get(f"tokenizer.ggml.{name}_token_id", int) for name in ("bos", "eos")},
        "pad_token_id": text.get("tokenizer.ggml.padding_token_id", int),
    }
    head = text.get(f"{kind}.attention.key_length", int)
    if head is not None and num_heads and head != width // num_heads:
        values["head_dim"] = head
    rotary = text.get(f"{kind}.rope.dimension_count", int)
    if rotary is not None and num_heads and rotary != (head or width // num_heads):
        raise GgufFault(
            f"{text.path} turns only {rotary} of the {head or width // num_heads} values of a head "
            f"({kind}.rope.dimension_count), which no LLaVA does.",
            "llama.cpp itself runs such models.",
        )
    window = text.get(f"{kind}.attention.sliding_window", int)
    if window:
        raise GgufFault(
            f"{text.path} says {kind}.attention.sliding_window: {window}, which no LLaVA has.",
            "llama.cpp itself runs such models.",
        )
    return values


def _describe_rope(text: Header, kind: str) -> dict[str, Any]:
    values: dict[str, Any] = {"rope_theta": text.get(f"{kind}.rope.freq_base", float, 10000.0), "rope_scaling": None}
    scaling = text.get(f"{kind}.rope.scaling.type", str, "none")
    factor = text.get(f"{kind}.rope.scaling.factor", float, text.get(f"{kind}.rope.scale_linear", float))
    if scaling == "linear" or (scaling == "none" and factor not in (None, 1.0)):
        values["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif scaling != "none":
        raise GgufFault(
            f"{text.path} says {kind}.rope.scaling.type: {scaling!r:.60}; supported are none and linear.",
            "llama.cpp itself runs such models.",
        )
    if "rope_freqs.weight" in text.tensors and KEPT_CONFIG not in text.metadata:
        raise GgufFault(
            f"{text.path} scales its rotary embeddings by a tensor, rope_freqs.weight, as Llama 3.1 does: no LLaVA "
            "that is supported has it.",
            "llama.cpp itself runs such models.",
        )
    return values


def _describe_vision(text: Header, vision: Header) -> dict[str, Any]:
    _check_projector(vision)
    tower = _describe_tower(vision)
    stored = tower["num_hidden_layers"]
    layers = vision.get_array("clip.vision.feature_layer", int)
    if layers is not None and len(layers) != 1:
        raise GgufFault(
            f"{vision.path} reads several layers of its tower (clip.vision.feature_layer: {layers!r:.60}), as Granite "
            "Vision does; LLaVA reads one.",
            _AGAIN,
        )
    is_whole_clip = (stored, tower["hidden_size"]) == (_CLIP_L_BLOCKS, _CLIP_L_WIDTH)
    layer = layers[0] if layers else stored - 1 if is_whole_clip else stored
    return {
        "mm_vision_config": tower,
        "mm_vision_tower": name_tower({**tower, "num_hidden_layers": _CLIP_L_BLOCKS if stored == 23 else stored}),
        "mm_vision_select_layer": layer,
        "mm_vision_select_feature": "patch",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": tower["hidden_size"],
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "use_mm_proj": True,
        "unfreeze_mm_vision_tower": True,
        **_describe_tiling(text, vision),
    }


def _check_projector(vision: Header) -> None:
    """Raises GgufFault unless the file is a CLIP tower with LLaVA's projector."""
    if vision.architecture != "clip":
        raise GgufFault(
            f"{vision.path} is not an mmproj: its architecture is {vision.architecture!r:.60}, not 'clip'.",
            "Name the mmproj file of the model with --mmproj.",
        )
    kind = vision.get("clip.projector_type", str, vision.get("clip.vision.projector_type", str, "mlp"))
    layers = sorted({name.split(".")[1] for name in vision.tensors if re.fullmatch(r"mm\.\d+\.weight", name)})
    if kind != "mlp" or layers != ["0", "2"]:
        raise GgufFault(
            f"{vision.path} has a projector of the type {kind!r:.60} with the layers {', '.join(layers) or 'none'}; "
            "LLaVA-1.5's and 1.6's is 'mlp' with mm.0 and mm.2.",
            "llama.cpp itself runs models with other projectors.",
        )
    if "v.class_embd" not in vision.tensors:
        raise GgufFault(
            f"{vision.path} lacks the tensor v.class_embd: its tower is not a CLIP, whose mmproj alone is read.",
            "Use the checkpoint that it was made from.",
        )


def _describe_tower(vision: Header) -> dict[str, Any]:
    if vision.get("clip.use_silu", bool, False):
        raise GgufFault(f"{vision.path} says clip.use_silu: true, which no CLIP tower has.", _AGAIN)
    return {
        "model_type": "clip_vision_model",
        "hidden_size": vision.need("clip.vision.embedding_length", int),
        "intermediate_size": vision.need("clip.vision.feed_forward_length", int),
        "num_hidden_layers": vision.need("clip.vision.block_count", int),
        "num_attention_heads": vision.need("clip.vision.attention.head_count", int),
        "image_size": vision.need("clip.vision.image_size", int),
        "patch_size": vision.need("clip.vision.patch_size", int),
        "projection_dim": vision.get("clip.vision.projection_dim", int, 0) or 768,
        "layer_norm_eps": vision.need("clip.vision.attention.layer_norm_epsilon", float),
        "hidden_act": "gelu" if vision.get("clip.use_gelu", bool, False) else "quick_gelu",
    }


def _describe_tiling(text: Header, vision: Header) -> dict[str, Any]:
    """Raises GgufFault if the file has only a part of what AnyRes needs, and names what is missing."""
    flat = vision.get_array("clip.vision.image_grid_pinpoints", int)
    merge = vision.get("clip.vision.mm_patch_merge_type", str)
    newline = next((name for name in _NEWLINES if name in vision.tensors), None)
    is_kept = KEPT_CONFIG in text.metadata
    if not flat and merge in (None, "flat") and newline is None:
        return {"image_aspect_ratio": "pad", "mm_patch_merge_type": "flat"}
    missing = [
        what
        for what, is_there in (
            ("the metadata clip.vision.image_grid_pinpoints", flat),
            ("the metadata clip.vision.mm_patch_merge_type", merge),
            ("the tensor model.image_newline", newline is not None or "unpad" not in (merge or "unpad")),
        )
        if not is_there
    ]
    if missing and not is_kept:
        raise GgufFault(
            f"{vision.path} is a part of LLaVA-1.6 (AnyRes), but lacks {' and '.join(missing)}.",
            "Without them images would be cut in another way than the model was trained with: use a complete mmproj.",
        )
    if flat and len(flat) % 2:
        raise GgufFault(f"{vision.path} has an odd number of clip.vision.image_grid_pinpoints.", _AGAIN)
    pinpoints = [list(pair) for pair in zip(*[iter(flat or ())] * 2, strict=True)]
    aspect = vision.get("clip.vision.image_aspect_ratio", str, "anyres" if flat else "pad")
    return {
        "image_aspect_ratio": aspect,
        "mm_patch_merge_type": merge or "flat",
        **({"image_grid_pinpoints": pinpoints} if pinpoints else {}),
    }
