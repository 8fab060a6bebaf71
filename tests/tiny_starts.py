"""What a stage can start from, small: language models alone, projectors, towers; and a batch to train on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llava.train.recipe import JsonData, TuningStage, Vision
from tests.tiny_checkpoints import Tensors, decoder_shapes, projector_shapes, random_tensors, write_tower
from tests.tiny_configs import CONFIG, GENERATION, NEXT, PINPOINTS, write_json
from tests.tiny_tokenizers import words_and_letters

ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"}
VISION_KEYS = ("image_", "mm_", "tune_", "freeze_", "tokenizer_", "use_mm", "unfreeze_")
ANYRES: dict[str, Any] = {
    "image_aspect_ratio": "anyres",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": PINPOINTS,
}
assert NEXT["image_grid_pinpoints"] == PINPOINTS


def write_language_model(folder: Path, family: str = "llama", **changes: Any) -> Tensors:
    """A language model alone, in float16, with Vicuna's generation settings; returns its tensors."""
    config = {key: value for key, value in CONFIG.items() if not key.startswith(VISION_KEYS)}
    config |= {"model_type": family, "architectures": [ARCHITECTURES[family]], **changes}
    del config["_name_or_path"]
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", GENERATION)
    words_and_letters("What is in the image").save_pretrained(folder)
    shapes = decoder_shapes(config | {"model_type": "llava_qwen" if family == "qwen2" else ""})
    if config["tie_word_embeddings"]:
        del shapes["lm_head.weight"]
    tensors = random_tensors(shapes, seed=3)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def make_tower(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_tower(folder)
    return folder


def write_projector(file: Path, **changes: Any) -> Tensors:
    """What stage 1 saves."""
    tensors = random_tensors(projector_shapes({**CONFIG, **changes}), seed=5, dtype=torch.float32)
    torch.save(tensors, file)
    return tensors


def make_stage(vision: dict[str, Any] | None = None, **changes: Any) -> TuningStage:
    values: dict[str, Any] = {"name": "tune", "steps": 1, "batch_size": 2, "lr": 1e-3, "max_length": 512, **changes}
    if isinstance(values.get("data"), tuple):
        values["data"] = JsonData(json="data.json", templates=values["data"])
    return TuningStage(**values, vision=Vision(**(vision or {})))


def write_tokenizer_template(folder: Path, text: str) -> None:
    """Gives the tokenizer in the folder a chat template."""
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return values


def make_lesson(model: Any, seed: int = 0) -> dict[str, Any]:
    """A batch of two rows with an image each, and its labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 300, (2, 12), generator=generator)
    ids[:, 0], ids[:, 2] = 1, -200
    labels = ids.clone()
    labels[:, :6] = -100
    num_tiles = 5 if "anyres" in model.config.image_aspect_ratio else 1
    side = model.get_vision_tower().tile_px
    images = [torch.randn(num_tiles, 3, side, side, generator=generator) for _ in range(2)]
    return {"input_ids": ids, "labels": labels, "images": images, "image_sizes": [(50, 50)] * 2}


def train_a_little(model: Any, steps: int = 3, lr: float = 1e-2) -> list[float]:
    """Losses of a few updates of everything that requires gradients."""
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=lr)
    losses = []
    for step in range(steps):
        loss = model(**make_lesson(model, seed=step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
