"""Real llama.cpp on a pair of GGUF files that this package wrote, against this package. Run by ``make test-engines``.

A LLaVA-1.5 of random weights on images of one tile, which no program has to scale: prompts have to be the same token
for token, greedy answers too. llama.cpp computes GELU by its approximation, so weights are such that one token is
clearly preferred.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llava.answer import place_images, start_conversation
from llava.constants import IMAGE_TOKEN_INDEX
from llava.image.geometry import Size, plan_tiles
from llava.image.pixels import make_pixels
from llava.model.checkpoint import load_model
from llava.model.conversion import convert
from llava.prompt import render
from tests.engines.small_checkpoints import write_checkpoint

SCRIPT = Path(__file__).with_name("llama_cpp_answer.py")
NUM_TOKENS = 12


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter that has llama.cpp."""
    named = request.config.getoption("--llama_cpp-python")
    if named is None:
        pytest.skip("no --llama_cpp-python")
    return str(named)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama_cpp") / "source"
    write_checkpoint(folder, is_next=False)
    return folder


def draw_image(path: Path, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (6, 6, 3), generator=generator, dtype=torch.uint8).numpy()
    Image.fromarray(coarse).resize((336, 336), Image.Resampling.NEAREST).save(path)
    return path


def answer_here(model: Path, image: Image.Image, question: str) -> tuple[str, list[Any], list[int]]:
    """The prompt as text for llama.cpp, the prompt's ids with an image as [positions], and the greedy answer."""
    loaded = load_model(model, device="cpu", dtype="float32")
    conversation = start_conversation(loaded)
    conversation.append_message(conversation.roles[0], place_images(loaded, question, 1))
    conversation.append_message(conversation.roles[1], None)
    plan = plan_tiles(Size(*image.size), loaded.spec.tiling)
    ids = render(conversation, loaded.tokenizer, [plan.num_positions], limit_tokens=None).input_ids
    said = loaded.model.generate(
        torch.tensor([ids]),
        images=[make_pixels(image, plan, loaded.image_processor)],
        image_sizes=[image.size],
        max_new_tokens=NUM_TOKENS,
        do_sample=False,
        eos_token_id=None,
    )
    prompt: list[Any] = [[plan.num_positions] if token == IMAGE_TOKEN_INDEX else token for token in ids]
    return conversation.get_prompt().replace("<image>", "<__media__>"), prompt, said[0].tolist()


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_llama_cpp_says_the_same_as_this_package(tmp_path: Path, checkpoint: Path, python: str, kind: str) -> None:
    convert(checkpoint, tmp_path / "pair", "gguf", gguf_type=kind)
    model, eyes = (next((tmp_path / "pair").glob(pattern)) for pattern in ("pair-*.gguf", "mmproj-*.gguf"))
    answers = set()
    for seed, question in enumerate(["What is in the image?", "Is it a cat,\n or  2 dogs?"]):
        image = draw_image(tmp_path / f"{seed}.png", seed)
        text, prompt, said = answer_here(model, Image.open(image).convert("RGB"), question)
        done = subprocess.run(
            [python, str(SCRIPT), str(model), str(eyes), str(image), text, str(NUM_TOKENS)],
            check=True,
            capture_output=True,
            text=True,
        )
        theirs = json.loads(done.stdout.splitlines()[-1])
        assert theirs["prompt"] == prompt
        assert theirs["answer"] == said
        answers.add(tuple(said))
    assert len(answers) == 2, "the image and the question make no difference"
