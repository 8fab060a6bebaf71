"""A small LLaVA with a lexical tower, whose three networks are replaced by ones that read simple images exactly.

An image is white with plain squares of 32 px: red ones are drawn stars, and black ones are words, which number N from
the top left reads as ``word N``. So what the tower has to say about an image is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

from llava.image.pixels import ImageProcessor
from llava.model.checkpoint import save_checkpoint
from llava.model.lexical import lexical_tower
from llava.model.lexical.object_finder import Drawn
from llava.model.llava import LlavaConfig, LlavaLlamaForCausalLM

TILE_PX = 96
CELL_PX = 32
FEATURES, CLASSES = 1280, 1000  # the projector's sizes
LEXICAL: dict[str, Any] = {
    "model_type": "lexical_vision_model",
    "image_size": TILE_PX,
    "hidden_size": 3 + FEATURES + CLASSES + 3,
    "max_words": 60,
    "things_config": {"num_channels": 8},
    "reader_config": {},
    "objects_config": {},
}
CONFIG: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,
    "tie_word_embeddings": True,
    "conversation_template": "qwen_1_5",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": [[TILE_PX * x, TILE_PX * y] for x, y in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1))],
    "mm_patch_merge_type": "flat",
    "mm_projector_type": "lexical",
    "mm_hidden_size": LEXICAL["hidden_size"],
    "mm_vision_select_layer": -1,
    "mm_vision_config": LEXICAL,
    "mm_image_adapter": {"rank": 2, "alpha": 4},
}


class Seen(NamedTuple):
    features_TC: torch.Tensor
    logits_TC: torch.Tensor
    map_TCHW: torch.Tensor


class TinyThings(nn.Module):
    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, num_channels, 32, 32, bias=False)
        self.norm = nn.BatchNorm2d(num_channels)
        self.classify = nn.Sequential(nn.Linear(FEATURES, 2), nn.Linear(2, CLASSES))

    def forward(self, pixels_TCHW: torch.Tensor) -> Seen:
        map_TCHW = self.norm(self.stem(pixels_TCHW))
        map_TCHW = map_TCHW.repeat(1, FEATURES // map_TCHW.shape[1], 1, 1)
        features_TC = map_TCHW.mean((2, 3))
        return Seen(features_TC, self.classify(features_TC), map_TCHW)


class Word(NamedTuple):
    text: str
    box: tuple[float, float, float, float]
    ink: str
    ground: str
    score: float
    drop: float = 0.0


def find_squares(image: torch.Tensor, colour: tuple[int, int, int]) -> list[tuple[float, float, float, float]]:
    boxes = []
    middle = CELL_PX // 2
    for y in range(middle, image.shape[1], CELL_PX):
        for x in range(middle, image.shape[2], CELL_PX):
            if image[:, y, x].tolist() == list(colour):
                boxes.append((x - middle, y - middle, x + middle, y + middle))
    return [tuple(map(float, box)) for box in boxes]  # type: ignore[misc]


class TinyReader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def read(self, image: torch.Tensor) -> list[Word]:
        assert image.dtype == torch.uint8
        boxes = find_squares(image, (0, 0, 0))
        return [Word(f"word {number}", box, "black", "white", 1.0) for number, box in enumerate(boxes)]


class TinyObjects(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def find(self, image: torch.Tensor) -> list[Drawn]:
        return [Drawn("star", "red", box, 1.0) for box in find_squares(image, (255, 0, 0))]


def draw(width: int, height: int, words: int = 1, stars: int = 1) -> Image.Image:
    """An image with so many squares, from the top left on, that is not scaled where a canvas has its size."""
    image = Image.new("RGB", (width, height), "white")
    pencil = ImageDraw.Draw(image)
    places = [(x, y) for y in range(0, height, CELL_PX) for x in range(0, width, CELL_PX)]
    for (x, y), colour in zip(places, ["black"] * words + ["red"] * stars, strict=False):
        pencil.rectangle((x, y, x + CELL_PX - 1, y + CELL_PX - 1), fill=colour)
    return image


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with ChatML's marks, as SmolLM2's: its BOS is ``<|im_start|>``, which it never adds itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=[AddedToken(mark, special=True, normalized=False) for mark in marks],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "2 objects from left to right: red star (top left). Text (1 line):\n1. word 0\nuser assistant system"
    tokenizer.train_from_iterator([text] * 20, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )


def use_stand_ins(patch: pytest.MonkeyPatch) -> None:
    """Lets towers be built of the small networks of this module."""
    for name, part in (("EfficientNetLite", TinyThings), ("LineReader", TinyReader), ("ObjectFinder", TinyObjects)):
        patch.setattr(lexical_tower, name, part)


def make_lexical(seed: int = 0, **changes: Any) -> Any:
    """A model with random weights, in evaluation mode, without companions; call ``use_stand_ins`` before."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = LlavaLlamaForCausalLM(LlavaConfig(**{**CONFIG, **ids, "pad_token_id": ids["eos_token_id"], **changes}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".image_lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.generation_config = GenerationConfig(**ids, pad_token_id=ids["eos_token_id"])
    return model.eval()


def write_lexical(folder: Path, **changes: Any) -> Any:
    """Saves such a model, and returns it."""
    model = make_lexical(**changes)
    save_checkpoint(model, make_tokenizer(), model.get_vision_tower().image_processor, folder)
    return model


def usual_processor() -> ImageProcessor:
    return lexical_tower.LexicalVisionTower.usual_processor(TILE_PX)
