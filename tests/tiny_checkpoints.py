"""Small checkpoint folders as the originals wrote them: names and shapes are spelled out, not taken from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.tiny_configs import CONFIG, GENERATION, NEXT, TOWER, write_json
from tests.tiny_tokenizers import words_and_letters

Tensors = dict[str, torch.Tensor]


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float16) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: (torch.randn(shape, generator=generator) * 0.05).to(dtype) for name, shape in shapes.items()}


def decoder_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes[layer + "self_attn.q_proj.weight"] = (width, width)
        shapes[layer + "self_attn.k_proj.weight"] = (kv, width)
        shapes[layer + "self_attn.v_proj.weight"] = (kv, width)
        shapes[layer + "self_attn.o_proj.weight"] = (width, width)
        if config["model_type"] == "llava_qwen":
            shapes |= {layer + f"self_attn.{x}_proj.bias": (n,) for x, n in (("q", width), ("k", kv), ("v", kv))}
        shapes[layer + "mlp.gate_proj.weight"] = (inner, width)
        shapes[layer + "mlp.up_proj.weight"] = (inner, width)
        shapes[layer + "mlp.down_proj.weight"] = (width, inner)
        shapes[layer + "input_layernorm.weight"] = (width,)
        shapes[layer + "post_attention_layernorm.weight"] = (width,)
    return shapes | {"model.norm.weight": (width,), "lm_head.weight": (vocab, width)}


def projector_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width = config["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.mm_projector.0.weight": (width, TOWER["hidden_size"]),
        "model.mm_projector.0.bias": (width,),
        "model.mm_projector.2.weight": (width, width),
        "model.mm_projector.2.bias": (width,),
    }
    if "unpad" in config.get("mm_patch_merge_type", "flat"):
        shapes["model.image_newline"] = (width,)
    return shapes


def tower_shapes(prefix: str = "vision_model.") -> dict[str, tuple[int, ...]]:
    width, inner = TOWER["hidden_size"], TOWER["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "embeddings.position_embedding.weight": (5, width),
        "pre_layrnorm.weight": (width,),
        "pre_layrnorm.bias": (width,),
        "post_layernorm.weight": (width,),
        "post_layernorm.bias": (width,),
    }
    for i in range(TOWER["num_hidden_layers"]):
        layer = f"encoder.layers.{i}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= {f"{layer}self_attn.{name}.weight": (width, width), f"{layer}self_attn.{name}.bias": (width,)}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}{name}.weight": (width,), f"{layer}{name}.bias": (width,)}
        shapes |= {f"{layer}mlp.fc1.weight": (inner, width), f"{layer}mlp.fc1.bias": (inner,)}
        shapes |= {f"{layer}mlp.fc2.weight": (width, inner), f"{layer}mlp.fc2.bias": (width,)}
    return {prefix + name: shape for name, shape in shapes.items()}


def write_companions(folder: Path, config: dict[str, Any]) -> None:
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", GENERATION)
    words_and_letters("What is in the image").save_pretrained(folder)


def write_bin_shards(folder: Path, tensors: Tensors, num_shards: int = 2) -> None:
    names = list(tensors)
    places: dict[str, str] = {}
    for number in range(num_shards):
        file = f"pytorch_model-{number + 1:05}-of-{num_shards:05}.bin"
        shard = {name: tensors[name] for name in names[number::num_shards]}
        torch.save(shard, folder / file)
        places.update(dict.fromkeys(shard, file))
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})


def write_tower(folder: Path) -> Tensors:
    """A complete CLIP with its text half and old buffers, and integers as sizes in its preprocessor_config.json."""
    config = {"model_type": "clip", "vision_config": TOWER, "text_config": {"hidden_size": 8}}
    write_json(folder / "config.json", config)
    write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": 28,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": 28,
        },
    )
    tensors = random_tensors(tower_shapes(), seed=7, dtype=torch.float32)
    others = {
        "text_model.embeddings.token_embedding.weight": torch.ones(4, 8),
        "text_model.embeddings.position_ids": torch.arange(4)[None],
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
        "text_projection.weight": torch.ones(8, 8),
        "visual_projection.weight": torch.ones(8, 16),
        "logit_scale": torch.tensor(2.6),
    }
    torch.save(tensors | others, folder / "pytorch_model.bin")
    return {"model.vision_tower.vision_tower." + name: tensor for name, tensor in tensors.items()}


def write_llava_1_5(folder: Path, tower_folder: Path, tower_name: str | None = None, **changes: Any) -> Tensors:
    """Shards of .bin without a tower; returns all tensors that a model has to hold, by their names."""
    config = {**CONFIG, "mm_vision_tower": tower_name or str(tower_folder), **changes}
    write_companions(folder, config)
    own = random_tensors(decoder_shapes(config) | projector_shapes(config))
    write_bin_shards(folder, own | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    return own | write_tower(tower_folder)


def write_llava_1_6(folder: Path, **changes: Any) -> Tensors:
    """One .safetensors with the tower inside, its shape in ``mm_vision_config``."""
    config = {**CONFIG, **NEXT, "mm_vision_config": TOWER, **changes}
    write_companions(folder, config)
    shapes = decoder_shapes(config) | projector_shapes(config)
    tensors = random_tensors(shapes | tower_shapes("model.vision_tower.vision_tower.vision_model."))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors
