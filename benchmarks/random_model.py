"""A model with random weights that are made on its device, for benchmarks that need no checkpoint on disk."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from engine import PINPOINTS  # beside this file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from llava.config import read_spec
from llava.image.pixels import ImageProcessor
from llava.model.checkpoint import LoadedModel, _compute_buffers
from llava.model.meta_model import build_meta_model


def make_model(
    tower: dict[str, int], decoder: dict[str, int], device: torch.device, vocabulary: int = 32000
) -> LoadedModel:
    """A LoadedModel with random weights in bfloat16, made on the device; only its config.json is ever on disk."""
    config = {
        **decoder,
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": tower["hidden_size"],
        "mm_vision_tower": "clip-random",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_vision_config": {**tower, "image_size": 336, "patch_size": 14, "projection_dim": 768},
        "mm_patch_merge_type": "spatial_unpad",
        "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": PINPOINTS,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "config.json"
        path.write_text(json.dumps(config))
        spec = read_spec(path.parent)
        model = build_meta_model(spec, path.parent, path, "vicuna_v1", None)
    torch.manual_seed(0)
    for parameter_name, parameter in list(model.named_parameters()):
        value = torch.empty(parameter.shape, dtype=torch.bfloat16, device=device)
        is_norm = "norm" in parameter_name and parameter_name.endswith("weight")
        value = value.fill_(1.0) if is_norm else value.normal_(0, 0.02)
        owner, _, leaf = parameter_name.rpartition(".")
        model.get_submodule(owner).register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))
    _compute_buffers(model, device)
    model.config.dtype = torch.bfloat16
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(3, vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    processor = ImageProcessor(size=336)
    model.get_vision_tower().image_processor = processor
    return LoadedModel(fast, model.eval(), processor, spec, 4096, "vicuna_v1")
