"""A tiny LLaVA-NeXT checkpoint that answers benchmarks in their form and is right now and then, and how it is asked
alone.

Its weights are random, but attention is sharp enough for the last position to know the prompt and the image, and its
output head has rows for a few words only: letters, yes and no, numbers, colors, things. The rows are fitted once by
least squares to answers of which some are right (tests/gold/eval/make_benchmark_runs.py) and are kept as whole numbers,
so that the same answers come out wherever it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llava.eval.task import Question
from tests.tiny_checkpoints import write_llava_1_6
from tests.tiny_tokenizers import words_and_letters

WIDTH = 128
HEAD_STEP = 256
"""How many steps of the head's numbers make 1."""

MAX_NEW_TOKENS = 6

Head = Mapping[str, Sequence[int]]
"""The head's rows by token, in steps."""

_SCALES = {"q_proj": 6, "k_proj": 6, "v_proj": 3, "o_proj": 3, "up_proj": 3, "down_proj": 3}


def find_words(texts: Iterable[str]) -> list[str]:
    """The words of prompts, without punctuation, in alphabetical order."""
    system = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    system += "detailed, and polite answers to the user's questions. human USER ASSISTANT "
    system += "Yes No yes no unanswerable two 0 5"
    return sorted({word for text in (system, *texts) for word in re.findall(r"[A-Za-z0-9]+", text)})


def write_steered(folder: Path, words: Sequence[str], head: Head) -> None:
    """Writes the checkpoint; ``words`` are whole tokens of its tokenizer."""
    tokenizer = words_and_letters(" ".join(words))
    write_llava_1_6(folder, hidden_size=WIDTH, intermediate_size=WIDTH, vocab_size=len(tokenizer))
    tokenizer.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        part = name.split(".")[-2]
        if "vision_tower" not in name and part in _SCALES:
            tensor *= _SCALES[part]
        elif "vision_tower" not in name and part.endswith("norm"):
            tensor.fill_(1)
    rows = torch.zeros_like(tensors["lm_head.weight"])
    for token, row in head.items():
        rows[tokenizer.convert_tokens_to_ids(token)] = torch.tensor(row) / HEAD_STEP
    tensors["lm_head.weight"] = rows
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def encode(loaded: Any, question: Question, images: Sequence[Image.Image]) -> dict[str, Any]:
    """The prompt and the images as the original's ``model_vqa_loader`` hands them to ``generate``.

    The template is that of scripts/v1_5/eval, vicuna_v1 but for Q-Bench.
    """
    from llava.constants import IMAGE_TOKEN_INDEX
    from llava.conversation import conv_templates
    from llava.mm_utils import process_images, tokenizer_image_token

    conversation = conv_templates["llava_v1" if question.view == "center_crop" else "vicuna_v1"].copy()
    conversation.append_message(conversation.roles[0], "<image>\n" * len(images) + question.text)
    conversation.append_message(conversation.roles[1], None)
    prompt = conversation.get_prompt()
    ids = tokenizer_image_token(prompt, loaded.tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")[None]
    if not images:
        return {"input_ids": ids}
    pixels = process_images(list(images), loaded.image_processor, loaded.model.config)
    return {"input_ids": ids, "images": pixels, "image_sizes": [image.size for image in images]}


def ask_alone(loaded: Any, question: Question, images: Sequence[Image.Image]) -> str:
    """The answer of the model's own ``generate`` to one question, greedy."""
    inputs = encode(loaded, question, images)
    ids = loaded.model.generate(
        inputs.pop("input_ids"), **inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, use_cache=True
    )
    said: str = loaded.tokenizer.batch_decode(ids, skip_special_tokens=True)[0]
    return said.strip()
