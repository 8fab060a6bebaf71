"""Small GGUF files as llama.cpp's own converters write them: names, keys and the order of rows are spelled out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from tests.tiny_checkpoints import Tensors
from tests.tiny_configs import PINPOINTS, TOWER

_DECODER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of q and k."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def add(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: str) -> None:
    chosen = gguf.GGMLQuantizationType["F32" if values.ndim == 1 else kind]
    writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values, np.float32), chosen), raw_dtype=chosen)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def to_numpy(tensors: Tensors) -> dict[str, np.ndarray]:
    return {name: tensor.to(torch.float32).numpy() for name, tensor in tensors.items()}


def write_model(
    path: Path,
    tensors: Tensors,
    config: dict[str, Any],
    vocabulary: dict[str, Any],
    kind: str = "F16",
    part_tensors: int = 0,
) -> None:
    """The language model's half, as convert_hf_to_gguf.py writes it. ``vocabulary``: of ``tokenizer.*``.

    ``part_tensors``: it is cut into files of so many tensors each, with numbers in their names.
    """
    arch = "qwen2" if config["model_type"] == "llava_qwen" else "llama"
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=part_tensors)
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    for key, value in vocabulary.items():
        add_value(writer, "tokenizer." + key, value)
    for name, values in to_numpy(tensors).items():
        if name.startswith("model.layers."):
            _, _, block, rest = name.split(".", 3)
            part, _, leaf = rest.rpartition(".")
            if arch == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
                key = "num_attention_heads" if "q_proj" in part else "num_key_value_heads"
                values = permute(values, config[key])
            add(writer, f"blk.{block}.{_DECODER[part]}.{leaf}", values, kind)
        elif name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            theirs = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
            add(writer, theirs[name.removesuffix(".weight")] + ".weight", values, kind)
    finish(writer)


def add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds.get(type(value), writer.add_array)(key, value)


def write_mmproj(
    path: Path, tensors: Tensors, *, is_next: bool, kind: str = "F16", without: str = "", **changes: Any
) -> None:
    """The vision half, as convert_image_encoder_to_gguf.py writes it: without the tower's last block and norm.

    ``without``: a key or a tensor that is left out. ``changes``: of metadata, by the last part of the key.
    """
    writer = gguf.GGUFWriter(path, "clip")
    metadata = {
        "clip.has_text_encoder": False,
        "clip.has_vision_encoder": True,
        "clip.has_llava_projector": True,
        "clip.projector_type": "mlp",
        "clip.use_gelu": False,
        "clip.vision.image_size": TOWER["image_size"],
        "clip.vision.patch_size": TOWER["patch_size"],
        "clip.vision.embedding_length": TOWER["hidden_size"],
        "clip.vision.feed_forward_length": TOWER["intermediate_size"],
        "clip.vision.projection_dim": TOWER["projection_dim"],
        "clip.vision.attention.head_count": TOWER["num_attention_heads"],
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.block_count": TOWER["num_hidden_layers"] - 1,
        "clip.vision.image_mean": [0.48145466, 0.4578275, 0.40821073],
        "clip.vision.image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    if is_next:
        metadata["clip.vision.image_grid_pinpoints"] = [side for point in PINPOINTS for side in point]
        metadata["clip.vision.image_aspect_ratio"] = "anyres"
        metadata["clip.vision.mm_patch_merge_type"] = "spatial_unpad"
    metadata = {key: changes.get(key.rpartition(".")[2], value) for key, value in metadata.items()}
    for key, value in metadata.items():
        if key != without:
            add_value(writer, key, value)
    last = f"encoder.layers.{TOWER['num_hidden_layers'] - 1}."
    for name, values in to_numpy(tensors).items():
        theirs = name.rpartition("vision_model.")[2] if "vision_tower" in name else name
        if (
            last in theirs
            or "post_layernorm" in theirs
            or theirs.startswith(("model.layers", "model.embed", "lm_head"))
        ):
            continue
        if theirs == "model.norm.weight" or theirs == without:
            continue
        if "vision_tower" in name:
            theirs = "v." + theirs
        for old, new in (
            ("model.mm_projector", "mm"),
            ("encoder.layers", "blk"),
            ("embeddings.", ""),
            ("self_attn.", "attn_"),
            ("_proj", ""),
            ("layer_norm", "ln"),
            ("mlp.fc1", "ffn_down"),
            ("mlp.fc2", "ffn_up"),
            ("embedding", "embd"),
            ("layrnorm", "ln"),
        ):
            theirs = theirs.replace(old, new)
        if theirs != without:
            add(writer, theirs, values, kind)
    finish(writer)


def describe_bpe(tokenizer: Any, pre: str, num_rows: int) -> dict[str, Any]:
    """A byte-level tokenizer's metadata."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))]
    special = {token["id"] for token in state["added_tokens"]}
    kinds = [3 if i in special else 1 for i in range(len(tokens))]
    spare = num_rows - len(tokens)
    values = {
        "ggml.model": "gpt2",
        "ggml.pre": pre,
        "ggml.tokens": tokens + [f"[PAD{len(tokens) + i}]" for i in range(spare)],
        "ggml.token_type": kinds + [5] * spare,
        "ggml.merges": [" ".join(merge) for merge in state["model"]["merges"]],
        "ggml.eos_token_id": tokenizer.eos_token_id,
        "ggml.add_bos_token": tokenizer.bos_token_id is not None,
    }
    return values | ({} if tokenizer.bos_token_id is None else {"ggml.bos_token_id": tokenizer.bos_token_id})


def describe_pieces(model: bytes, added: dict[str, int] | None = None, **changes: Any) -> dict[str, Any]:
    """A SentencePiece model's metadata; ``added``: tokens beyond its pieces."""
    from sentencepiece import SentencePieceProcessor

    reader = SentencePieceProcessor(model_proto=model)
    tokens = [reader.id_to_piece(i) for i in range(len(reader))]
    scores = [reader.get_score(i) for i in range(len(reader))]
    kinds = [
        2 if reader.is_unknown(i) else 3 if reader.is_control(i) else 6 if reader.is_byte(i) else 1
        for i in range(len(reader))
    ]
    for token in added or {}:
        tokens.append(token)
        scores.append(-1000.0)
        kinds.append(4)
    return {
        "ggml.model": "llama",
        "ggml.pre": "default",
        "ggml.tokens": tokens,
        "ggml.scores": scores,
        "ggml.token_type": kinds,
        "ggml.bos_token_id": 1,
        "ggml.eos_token_id": 2,
        "ggml.unknown_token_id": 0,
        "ggml.add_bos_token": True,
        **changes,
    }


def write_ollama(store: Path, name: str, model: Path, mmproj: Path | None, template: str | None = None) -> Path:
    """A model in Ollama's store, whose files are moved there; returns its manifest."""
    layers = []
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    contents = {
        "model": model.read_bytes(),
        "projector": mmproj and mmproj.read_bytes(),
        "template": template and template.encode(),
    }
    for kind, content in contents.items():
        if content:
            digest = hashlib.sha256(content).hexdigest()
            (store / "blobs" / f"sha256-{digest}").write_bytes(content)
            media = f"application/vnd.ollama.image.{kind}"
            layers.append({"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)})
    model_name, _, tag = name.partition(":")
    manifest = store / "manifests/registry.ollama.ai/library" / model_name / (tag or "latest")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest.write_text(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": {}, "layers": layers}))
    return manifest
