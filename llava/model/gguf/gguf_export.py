"""Writes a checkpoint as the pair of GGUF files that llama.cpp and Ollama load, with a Modelfile for Ollama.

Matrices of the language model take the chosen type, those of the mmproj float16 unless it is float32; vectors are
always float32, as llama.cpp needs them. The tower keeps all of its blocks: ``block_count`` counts them, and
``feature_layer`` says which is read, so that versions of llama.cpp with and without the latter run the same blocks. Its
last norm is left out, because llama.cpp would apply it.

Source: ggml-org/llama.cpp as in llama-cpp-python 0.3.36: tools/mtmd/legacy-models/convert_image_encoder_to_gguf.py,
tools/mtmd/clip.cpp (load_hparams), tools/mtmd/models/llava.cpp; ollama/ollama@v0.5 docs/modelfile.md.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llava.conversation import find_template
from llava.errors import UsageError
from llava.model import layouts
from llava.model.chat_template import write_chat_template
from llava.model.checkpoint_reader import OpenCheckpoint
from llava.model.gguf.gguf_config import (
    KEPT_CONFIG,
    KEPT_GENERATION,
    describe_generation,
    describe_llava,
    keep_differences,
)
from llava.model.gguf.gguf_file import Header, TensorInfo, load_gguf
from llava.model.gguf.gguf_vocabulary import describe_tokenizer
from llava.model.gguf.tensor_names import count_heads, interleave, name_to_gguf
from llava.model.image_adapter import read_adapter
from llava.model.tensor_accounting import shapes_of
from llava.prompt import find_closings, write_image_slot

TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
_POST_NORM = f"{layouts.TOWER}post_layernorm."
_MAX_IN_MEMORY = 256 << 20  # bytes
_FLOAT16_END = 65520  # the least number that float16 rounds to infinity
# Source: llama.cpp's llama_ftype.
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}


@dataclass(frozen=True)
class Source:
    """What is written: a checkpoint in the original's form, whose tensors come one by one."""

    opened: OpenCheckpoint
    config: Mapping[str, Any]
    tower: Mapping[str, Any]
    tokenizer: Any
    processor: Any
    generation: Mapping[str, Any]
    num_rows: int


def check_expressible(opened: OpenCheckpoint, kind: str) -> None:
    """Raises UsageError if llama.cpp cannot run this checkpoint, or the type is unknown."""
    if kind not in TYPES:
        raise UsageError(f"There is no type '{kind}' for --type; use {', '.join(TYPES)}.")
    load_gguf()
    spec = opened.spec
    faults = [
        (spec.tower_config.get("model_type") == "siglip_vision_model", "a SigLIP tower"),
        (len(spec.scales) > 1, "a multi-scale tower (s2: true)"),
        (spec.projector_type != "mlp2x_gelu", f"the projector {spec.projector_type}"),
        (read_adapter(spec.config) is not None, "an image adapter (mm_image_adapter)"),
        (spec.select_feature != "patch", f"mm_vision_select_feature {spec.select_feature}"),
        (opened.model.get_vision_tower().num_blocks_run < 1, "a tower of which no block is run"),
        (
            spec.tower_config.get("hidden_act", "quick_gelu") not in ("quick_gelu", "gelu"),
            f"a tower with {spec.tower_config.get('hidden_act')}",
        ),
        (_describe_scaling(opened) is None, "a scaling of rotary embeddings other than linear"),
    ]
    for is_so, what in faults:
        if is_so:
            raise UsageError(f"{opened.folder} has {what}, which llama.cpp does not run: it cannot be converted.")


def write_gguf(
    source: Source, folder: Path, kind: str, tensors: Iterator[tuple[str, torch.Tensor]], name: str
) -> list[str]:
    """Writes the two files and a Modelfile into ``folder``; returns sentences about differences beyond names.

    Args:
        kind: one of TYPES.
        tensors: all tensors, by our names.
        name: of the model, from which the files' names are made.
    """
    template = find_template(source.opened.template)
    chat = write_chat_template(template, write_image_slot(bool(source.config.get("mm_use_im_start_end"))))
    text, vision = _describe_text(source, kind, name, chat), _describe_vision(source, kind, name)
    shapes = _list_shapes(source)
    text_header = Header(folder, text, {n: info for n, info in shapes.items() if not _is_vision(n)})
    vision_header = Header(folder, vision, {n: info for n, info in shapes.items() if _is_vision(n)})
    text[KEPT_CONFIG] = keep_differences(source.config, describe_llava(text_header, vision_header))
    text[KEPT_GENERATION] = keep_differences(source.generation, describe_generation(text_header))
    files = (folder / f"{name}-{kind.upper()}.gguf", folder / f"mmproj-{name}-{_vision_type(kind).upper()}.gguf")
    with contextlib.ExitStack() as stack:
        writers = [_start(path, metadata, stack) for path, metadata in zip(files, (text, vision), strict=True)]
        for ours, tensor in tensors:
            if not ours.startswith(_POST_NORM):
                theirs = name_to_gguf(ours)
                _add(source, writers[_is_vision(theirs)], theirs, tensor, kind)
        for writer in writers:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
    (folder / "Modelfile").write_text(_write_modelfile(source, template, [path.name for path in files]), "utf-8")
    return _list_notes(source, text)


def _is_vision(theirs: str) -> bool:
    """Whether a tensor of llama.cpp's name belongs into the mmproj."""
    return theirs.startswith(("v.", "mm.", "model."))


def _vision_type(kind: str) -> str:
    return "f32" if kind == "f32" else "f16"


def _list_shapes(source: Source) -> dict[str, TensorInfo]:
    """Names and shapes of the tensors that are going to be written. Their types are those of float16."""
    shapes = shapes_of(source.opened.model)
    if source.opened.model.config.tie_word_embeddings:
        shapes.pop(layouts.HEAD, None)
    resized = {layouts.EMBEDDINGS, layouts.HEAD}
    return {
        name_to_gguf(name): TensorInfo(1, (source.num_rows, *shape[1:]) if name in resized else shape)
        for name, shape in shapes.items()
        if not name.startswith(_POST_NORM)
    }


def _describe_text(source: Source, kind: str, name: str, chat: str | None) -> dict[str, Any]:
    config, spec = source.opened.model.config, source.opened.spec
    arch = _ARCHITECTURES[spec.family]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values: dict[str, Any] = {
        "general.architecture": arch,
        "general.name": name,
        "general.type": "model",
        "general.file_type": _FILE_TYPES[kind],
        "general.quantization_version": 2,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{arch}.rope.dimension_count": head,
        f"{arch}.rope.freq_base": float((config.rope_parameters or {}).get("rope_theta", 10000.0)),
        f"{arch}.vocab_size": source.num_rows,
        **{f"{arch}.{key}": value for key, value in (_describe_scaling(source.opened) or {}).items()},
    }
    if head != config.hidden_size // config.num_attention_heads:
        values |= {f"{arch}.attention.key_length": head, f"{arch}.attention.value_length": head}
    values |= describe_tokenizer(source.tokenizer, source.num_rows, values)
    if chat is not None:
        values["tokenizer.chat_template"] = chat
    ends = source.generation.get("eos_token_id")
    closings = [*(ends if isinstance(ends, list) else [ends]), *find_closings(find_template(source.opened.template),
                                                                             source.tokenizer)[1]]  # fmt: skip
    first = values.get("tokenizer.ggml.eos_token_id")
    others = [end for end in closings if isinstance(end, int) and end != first]
    if others:
        values["tokenizer.ggml.eot_token_id"] = others[0]
    return values


def _describe_scaling(opened: OpenCheckpoint) -> dict[str, Any] | None:
    """The metadata about a linear scaling of the rotary embeddings; None for another kind of scaling."""
    rope = opened.model.config.rope_parameters or {}
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    return {} if kind == "default" else None


def _describe_vision(source: Source, kind: str, name: str) -> dict[str, Any]:
    tower, tiling, module = source.tower, source.opened.spec.tiling, source.opened.model.get_vision_tower()
    body = module.config
    values: dict[str, Any] = {
        "general.architecture": "clip",
        "general.name": name,
        "general.type": "mmproj",
        "general.description": "image encoder for LLaVA",
        "general.file_type": _FILE_TYPES[_vision_type(kind)],
        "clip.has_text_encoder": False,
        "clip.has_vision_encoder": True,
        "clip.has_llava_projector": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": body.hidden_act == "gelu",
        "clip.vision.image_size": body.image_size,
        "clip.vision.patch_size": body.patch_size,
        "clip.vision.embedding_length": body.hidden_size,
        "clip.vision.feed_forward_length": body.intermediate_size,
        "clip.vision.projection_dim": int(tower.get("projection_dim") or body.projection_dim),
        "clip.vision.attention.head_count": body.num_attention_heads,
        "clip.vision.attention.layer_norm_epsilon": float(body.layer_norm_eps),
        "clip.vision.block_count": len(module.vision_tower.vision_model.encoder.layers),
        "clip.vision.feature_layer": [module.num_blocks_run],
        "clip.vision.image_mean": [float(number) for number in source.processor.image_mean],
        "clip.vision.image_std": [float(number) for number in source.processor.image_std],
    }
    if tiling.is_anyres:
        values["clip.vision.image_grid_pinpoints"] = [side for point in tiling.pinpoints for side in point]
        values["clip.vision.image_aspect_ratio"] = tiling.aspect
    if tiling.merge != "flat":
        values["clip.vision.mm_patch_merge_type"] = tiling.merge
    return values


def _start(path: Path, metadata: Mapping[str, Any], stack: contextlib.ExitStack) -> Any:
    """A writer for that file, with its metadata. It collects tensors beside the file, not in memory."""
    gguf = load_gguf()
    writer = gguf.GGUFWriter(path, metadata["general.architecture"], use_temp_file=True)
    aside = tempfile.SpooledTemporaryFile(_MAX_IN_MEMORY, dir=str(path.parent))  # noqa: SIM115 (the stack closes it)
    writer.temp_file = stack.enter_context(aside)
    for key, value in metadata.items():
        if key == "general.architecture":  # the writer's own
            continue
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    return writer


def _add(source: Source, writer: Any, name: str, tensor: torch.Tensor, kind: str) -> None:
    """Adds a tensor in the type that it takes in a file of that type."""
    gguf, config = load_gguf(), source.opened.model.config
    is_vision = _is_vision(name)
    if not is_vision and _ARCHITECTURES[source.opened.spec.family] == "llama":
        heads = count_heads(name, config.num_attention_heads, config.num_key_value_heads)
        tensor = tensor if heads is None else interleave(tensor, heads)
    chosen = _choose_type(name, tensor, _vision_type(kind) if is_vision else kind)
    values = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
    largest = float(np.abs(values).max(initial=0))
    if chosen == "F16" and largest >= _FLOAT16_END:
        raise UsageError(f"{name} reaches {largest:g}, too large for float16: use --type f32.")
    quantized = gguf.quants.quantize(values, gguf.GGMLQuantizationType[chosen])
    writer.add_tensor(name, quantized, raw_dtype=gguf.GGMLQuantizationType[chosen])


def _choose_type(name: str, tensor: torch.Tensor, kind: str) -> str:
    if tensor.ndim < 2 or name == "v.position_embd.weight":
        return "F32"
    if kind.startswith("q") and tensor.shape[-1] % 32:
        return "F16"  # as llama.cpp's own quantizer does, which needs rows of whole blocks
    # The head decides between tokens with close logits.
    return "Q8_0" if kind == "q4_0" and name in ("output.weight", "token_embd.weight") else kind.upper()


def _write_modelfile(source: Source, template: Any, files: list[str]) -> str:
    """Ollama's description of the model, for ``ollama create NAME -f Modelfile``."""
    said = template.copy()
    said.messages = []
    said.append_message(said.roles[0], "{{ .Prompt }}")
    said.append_message(said.roles[1], None)
    prompt = said.get_prompt()
    # A mark of the template may open its system text, as ChatML's does.
    mark = re.match(r"<\|[^\n]*\n", said.system)
    system = said.system[mark.end() :] if mark else said.system
    if system:
        prompt = prompt.replace(system, "{{ .System }}", 1)
    lines = [f"FROM ./{file}" for file in files]
    lines.append(f'TEMPLATE """{prompt}{{{{ .Response }}}}"""')
    if system:
        lines.append(f'SYSTEM """{system}"""')
    texts, ids = find_closings(template, source.tokenizer)
    for stop in dict.fromkeys([*texts, *(source.tokenizer.convert_ids_to_tokens(i) for i in ids)]):
        if stop and stop.strip():
            lines.append(f'PARAMETER stop "{stop.strip()}"')
    return "\n".join([*lines, "PARAMETER temperature 0.2", ""])


def _list_notes(source: Source, text: Mapping[str, Any]) -> list[str]:
    tiling = source.opened.spec.tiling
    notes = []
    if tiling.is_anyres:
        notes.append(
            "llama.cpp and Ollama cut images into tiles by rules of their own, not by LLaVA-1.6's (what shows only "
            "padding is kept, and newline vectors are left out): their answers differ, this package's do not."
        )
    elif tiling.aspect != "pad":
        notes.append(
            f"llama.cpp and Ollama pad images to a square, but this checkpoint was trained with {tiling.aspect}."
        )
    if text.get("llava.tokenizer.legacy") is False:
        notes.append(
            "llama.cpp and Ollama put a space before the text that follows a special token, which this tokenizer does "
            "not: from the second turn of a conversation on, a few tokens differ there."
        )
    return notes
