"""Real llama.cpp on a pair of GGUF files that this package wrote, against this package. Run by ``make test-engines``.

A LLaVA-1.5 of random weights on images of one tile, which no program has to scale: prompts have to be the same token
for token, the logits of the first token nearly, and greedy answers too, up to the first token that two logits nearly
tie for.

llama.cpp appends CLIP's class embedding to the patches since May 2025, but still adds position embeddings and chooses
rows as if it came first: each patch gets its neighbour's position, and the class takes the place of the first patch.
Its answers are compared with those of this package's tower with the same defect, or without it once it is mended.
Source: ggml-org/llama.cpp issue 25814, pull request 25844.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
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
from tests.engines.small_checkpoints import write_checkpoint, write_qwen

SCRIPT = Path(__file__).with_name("llama_cpp_answer.py")
NUM_TOKENS = 12
NEARLY = 0.03  # of logits, whose standard deviation is 0.7 to 1: llama.cpp approximates GELU


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter that has llama.cpp."""
    named = request.config.getoption("--llama_cpp-python")
    if named is None:
        pytest.skip("no --llama_cpp-python")
    return str(named)


def draw_image(path: Path, seed: int) -> Path:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (6, 6, 3), generator=generator, dtype=torch.uint8).numpy()
    Image.fromarray(coarse).resize((336, 336), Image.Resampling.NEAREST).save(path)
    return path


@dataclass(frozen=True)
class Answer:
    """A greedy answer of this package.

    Attributes:
        text: the prompt, with llama.cpp's word for an image.
        prompt: its ids, with an image as [number of positions].
        ids: of the answer.
        leads: of each of its tokens over the second best, in logits.
        logits: of its first token.
    """

    text: str
    prompt: list[Any]
    ids: list[int]
    leads: list[float]
    logits: torch.Tensor

    def compare(self, theirs: dict[str, list[Any]]) -> int:
        """Compare with llama.cpp's, up to the first token that is nearly a tie; returns how many were compared."""
        assert theirs["prompt"] == self.prompt
        num_clear = next((i for i, lead in enumerate(self.leads) if lead < NEARLY), len(self.leads))
        assert theirs["answer"][:num_clear] == self.ids[:num_clear]
        return num_clear

    def find_gap(self, theirs: dict[str, list[Any]]) -> float:
        """The largest difference between the logits of the first token."""
        return float((torch.tensor(theirs["logits"]) - self.logits).abs().max())


def put_class_last(embeddings: torch.nn.Module, _: Any, found: torch.Tensor) -> torch.Tensor:
    """What llama.cpp's defect makes of the tower's embeddings [1, 1 + patches, width]."""
    positions = embeddings.position_embedding.weight
    return (found - positions).roll(-1, 1) + positions


def answer_here(model: Path, image: Image.Image, question: str, *, is_class_last: bool) -> Answer:
    loaded = load_model(model, device="cpu", dtype="float32")
    if is_class_last:
        tower = loaded.model.get_vision_tower().vision_tower.vision_model
        tower.embeddings.register_forward_hook(put_class_last)
    conversation = start_conversation(loaded)
    conversation.append_message(conversation.roles[0], place_images(loaded, question, 1))
    conversation.append_message(conversation.roles[1], None)
    plan = plan_tiles(Size(*image.size), loaded.spec.tiling)
    ids = list(render(conversation, loaded.tokenizer, [plan.num_positions], limit_tokens=None).input_ids)
    eyes = {"images": [make_pixels(image, plan, loaded.image_processor)], "image_sizes": [image.size]}
    said = loaded.model.generate(
        torch.tensor([ids]), **eyes, max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None
    )[0].tolist()
    whole = torch.tensor([ids + said])
    with torch.no_grad():
        logits = loaded.model(input_ids=whole, attention_mask=torch.ones_like(whole), **eyes).logits[0]
    best = logits[-len(said) - 1 : -1].topk(2).values
    prompt: list[Any] = [[plan.num_positions] if token == IMAGE_TOKEN_INDEX else token for token in ids]
    text = conversation.get_prompt().replace("<image>", "<__media__>")
    return Answer(text, prompt, said, (best[:, 0] - best[:, 1]).tolist(), logits[-len(said) - 1])


def ask_there(python: str, pair: Path, image: Path, text: str) -> dict[str, list[Any]]:
    """What llama.cpp made of the prompt, and its answer."""
    model, eyes = (next(pair.glob(pattern)) for pattern in ("pair-*.gguf", "mmproj-*.gguf"))
    command = [python, str(SCRIPT), str(model), str(eyes), str(image), text, str(NUM_TOKENS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    values: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return values


def compare(python: str, pair: Path, image: Path, question: str) -> tuple[Answer, dict[str, list[Any]]]:
    """This package's answer, with llama.cpp's defect if that fits better, and llama.cpp's."""
    pixels = Image.open(image).convert("RGB")
    right, wrong = (answer_here(pair, pixels, question, is_class_last=last) for last in (False, True))
    theirs = ask_there(python, pair, image, right.text)
    return min((right, wrong), key=lambda ours: ours.find_gap(theirs)), theirs


def write_vicuna(folder: Path) -> None:
    write_checkpoint(folder, is_next=False)


@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("write", [write_vicuna, write_qwen])
def test_llama_cpp_says_the_same_as_this_package(
    tmp_path: Path, python: str, write: Callable[[Path], None], kind: str
) -> None:
    write(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "pair", "gguf", gguf_type=kind)
    answers, num_compared = set(), 0
    for seed, question in enumerate(["What is in the image?", "Is it a cat,\n or  2 dogs?", "Where?", "A dog. Black?"]):
        image = draw_image(tmp_path / f"{seed}.png", seed)
        ours, theirs = compare(python, tmp_path / "pair", image, question)
        assert ours.find_gap(theirs) < NEARLY
        num_compared += ours.compare(theirs)
        answers.add(tuple(ours.ids))
    assert len(answers) == 4, "the image and the question make no difference"
    assert num_compared >= 8


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_llama_cpp_runs_quantized_pairs(tmp_path: Path, python: str, kind: str) -> None:
    """It computes with activations in 8 bits, and this package does not: answers may differ."""
    write_vicuna(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "pair", "gguf", gguf_type=kind)
    image = draw_image(tmp_path / "0.png", 0)
    ours, theirs = compare(python, tmp_path / "pair", image, "What is in the image?")
    assert theirs["prompt"] == ours.prompt
    assert theirs["answer"][0] == ours.ids[0]
