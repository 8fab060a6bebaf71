"""VLMEvalKit's own LLaVA adapters, unmodified, ask a model of ours on a machine without CUDA.

Its code is that of ms-vlmeval, the copy that ModelScope publishes; VLMEvalKit has no release of its own on PyPI. The
``__init__`` of its packages, which import every model and benchmark it knows with some 60 further packages, are passed
over, and its list of benchmarks is stood in for by two functions that an adapter asks for the kind of a benchmark.
"""

from __future__ import annotations

import base64
import copy
import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llava.conversation import conv_templates
from llava.eval.question_files import read_mmbench
from llava.image.geometry import Size, plan_tiles
from llava.image.pixels import make_pixels
from llava.model.checkpoint import load_model
from llava.prompt import tokenizer_image_token
from tests.contract.conftest import copy_as

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
)
MAX_NEW_TOKENS = 10


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of VLMEvalKit's LLaVA adapters."""
    spec = importlib.util.find_spec("vlmeval")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    for name in ("vlmeval", "vlmeval.vlm", "vlmeval.vlm.llava"):
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, package)
    benchmarks: Any = ModuleType("vlmeval.dataset")
    benchmarks.DATASET_TYPE = benchmarks.DATASET_MODALITY = lambda dataset: dataset
    monkeypatch.setitem(sys.modules, "vlmeval.dataset", benchmarks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield importlib.import_module("vlmeval.vlm.llava.llava")
    for name in [name for name in sys.modules if name.split(".")[0] == "vlmeval"]:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture(autouse=True)
def harmless_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to a CUDA device stays where it is."""
    move = torch.Tensor.to

    def stay(self: torch.Tensor, *places: Any, **keywords: Any) -> torch.Tensor:
        keywords = {key: value for key, value in keywords.items() if not str(value).startswith("cuda")}
        return move(self, *(place for place in places if not str(place).startswith("cuda")), **keywords)

    monkeypatch.setattr(torch.Tensor, "to", stay)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def as_message(*parts: str | Path) -> list[dict[str, str]]:
    """Texts and images in VLMEvalKit's form."""
    return [{"type": "image" if isinstance(part, Path) else "text", "value": str(part)} for part in parts]


def say_alone(loaded: Any, prompt: str, max_new_tokens: int = MAX_NEW_TOKENS, **images: Any) -> list[int]:
    """The new tokens for one prompt, everything in float32."""
    ids = torch.tensor([tokenizer_image_token(prompt, loaded.tokenizer)])
    with torch.inference_mode():
        return loaded.model.generate(ids, do_sample=False, max_new_tokens=max_new_tokens, **images)[0].tolist()


def see(loaded: Any, *paths: Path) -> dict[str, Any]:
    """Images as the model's own preparation makes them."""
    images = [Image.open(path).convert("RGB") for path in paths]
    pixels = [
        make_pixels(image, plan_tiles(Size(*image.size), loaded.spec.tiling), loaded.image_processor)
        for image in images
    ]
    return {"images": pixels, "image_sizes": [image.size for image in images]} if images else {}


def decode(loaded: Any, ids: list[int]) -> str:
    return loaded.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.fixture
def llava_1_5(adapters: Any, square_checkpoint: Path) -> Any:
    with pytest.warns(UserWarning, match="Following kwargs received"):
        return adapters.LLaVA(model_path=str(square_checkpoint), max_new_tokens=MAX_NEW_TOKENS)


def test_the_llava_adapter_gets_the_answers_of_asking_alone(
    llava_1_5: Any, square_checkpoint: Path, images: list[Path]
) -> None:
    loaded = load_model(square_checkpoint, device="cpu", dtype="float32")
    answers = set()
    for parts in (
        [images[0], "What is in the image?"],
        [images[1], "What is in the image?"],
        ["What is an image?"],
        ["Compare ", images[2], "and", images[0], "in a word."],
    ):
        content = "".join(" <image> " if isinstance(part, Path) else part for part in parts)
        shown = see(loaded, *(part for part in parts if isinstance(part, Path)))
        expected = say_alone(loaded, f"{SYSTEM}USER: {content} ASSISTANT: ", **shown)
        assert llava_1_5.generate(as_message(*parts)) == decode(loaded, expected).strip()
        answers.add(tuple(expected))
    assert len(answers) == 4, "four unlike answers, or this shows nothing"


def test_the_llava_adapter_chats_over_several_turns(
    llava_1_5: Any, square_checkpoint: Path, images: list[Path]
) -> None:
    loaded = load_model(square_checkpoint, device="cpu", dtype="float32")
    turns = [
        {"role": "user", "content": as_message(images[2], "What is in the image?")},
        {"role": "assistant", "content": as_message("A cat.")},
        {"role": "user", "content": as_message("And in", images[0])},
    ]
    prompt = f"{SYSTEM}USER:  <image> What is in the image? ASSISTANT: A cat.</s>USER: And in <image>  ASSISTANT: "
    expected = say_alone(loaded, prompt, **see(loaded, images[2], images[0]))
    assert llava_1_5.chat(turns) == decode(loaded, expected).strip()


def test_the_llava_adapters_answer_ends_at_its_keyword(llava_1_5: Any, images: list[Path]) -> None:
    vocabulary = llava_1_5.tokenizer.get_vocab().items()
    sayable = {token_id for token, token_id in vocabulary if token.strip("\u2581") in ("What", "image")}
    llava_1_5.kwargs["suppress_tokens"] = sorted(set(range(llava_1_5.model.config.vocab_size)) - sayable)
    message = as_message(images[0], "What is in the image?")
    whole = llava_1_5.generate(copy.deepcopy(message))
    word = re.findall("What|image", whole)[2]
    llava_1_5.stop_str = word[1:-1]  # inside one token, so that only the text of the answer shows it
    assert llava_1_5.generate(message) == whole[: whole.index(word) + len(word)] != whole


def test_the_next_adapter_sends_one_tile_of_each_image_without_sizes(
    adapters: Any, next_checkpoint: Path, images: list[Path]
) -> None:
    loaded = load_model(next_checkpoint, device="cpu", dtype="float32")
    shown = [Image.open(path).convert("RGB") for path in images[:2]]
    tiles = loaded.image_processor.preprocess(shown, return_tensors="pt")["pixel_values"]
    conversation = conv_templates["qwen_1_5"].copy()
    conversation.append_message(conversation.roles[0], "<image>\n<image>\nWhat is in the images?")
    conversation.append_message(conversation.roles[1], None)
    tokens = say_alone(loaded, conversation.get_prompt(), images=tiles)
    end = tokens[6]
    adapter = adapters.LLaVA_Next2(model_path=str(copy_as(next_checkpoint, "llava-qwen-tiny")))
    adapter.model.generation_config.eos_token_id = end  # it asks for 2048 tokens
    answer = adapter.generate(as_message(*images[:2], "What is in the images?"))
    assert answer == decode(loaded, tokens[: tokens.index(end) + 1])


def test_the_llava_adapter_asks_mmbench_with_the_words_of_our_reader(
    llava_1_5: Any, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = base64.b64encode(images[0].read_bytes()).decode()
    rows = [
        {"question": "What is it?", "hint": "Look.", "A": "a cat", "B": "None", "C": "", "D": ""},
        {"question": "Which is it?", "hint": "", "A": "x", "B": "y", "C": "1", "D": "2.50"},
    ]
    columns = ("question", "hint", "A", "B", "C", "D")
    lines = ["\t".join(("index", *columns, "image"))]
    lines += ["\t".join((str(i), *(row[name] for name in columns), encoded)) for i, row in enumerate(rows)]
    table = tmp_path / "mmbench.tsv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(llava_1_5, "dump_image", lambda line, dataset: [str(images[0])])
    ours = read_mmbench(table, tmp_path)
    # VLMEvalKit keeps an option that is called "None"; the original, and this package, end the list there.
    texts = [question.text for question in ours]
    texts[0] = texts[0].replace("A. a cat\n", "A. a cat\nB. None\n")
    theirs = [
        llava_1_5.build_prompt({name: value or float("nan") for name, value in row.items()}, dataset="MCQ")
        for row in rows
    ]
    assert [[part["type"] for part in message] for message in theirs] == [["image", "text"]] * 2
    assert [message[1]["value"] for message in theirs] == texts


@pytest.fixture
def one_vision(adapters: Any, next_checkpoint: Path) -> Any:
    return adapters.LLaVA_OneVision(model_path=str(copy_as(next_checkpoint, "llava-video-tiny")))


def as_qwen(content: str) -> str:
    conversation = conv_templates["qwen_1_5"].copy()
    conversation.append_message(conversation.roles[0], content)
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()


def test_the_onevision_adapter_sends_all_tiles_and_sizes(
    one_vision: Any, next_checkpoint: Path, images: list[Path]
) -> None:
    loaded = load_model(next_checkpoint, device="cpu", dtype="float32")
    prompt = as_qwen("<image>\n<image>\nWhat is in the images?")
    tokens = say_alone(loaded, prompt, **see(loaded, images[0], images[2]))
    end = one_vision.model.generation_config.eos_token_id = tokens[6]
    answer = one_vision.generate(as_message(images[0], images[2], "What is in the images?"), dataset="IMAGE")
    assert answer == decode(loaded, tokens[: tokens.index(end) + 1])


def test_the_onevision_adapters_video_is_one_image_of_many_frames(
    one_vision: Any, next_checkpoint: Path, tmp_path: Path
) -> None:
    frames = np.random.default_rng(3).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    # In place of decord and a film.
    one_vision.load_video = lambda *settings: (frames, "0.00s,1.00s,2.00s", 3.0)
    film = tmp_path / "film.mp4"
    film.write_bytes(b"")

    loaded = load_model(next_checkpoint, device="cpu", dtype="float32", overrides={"mm_spatial_pool_mode": "average"})
    told = (
        "The video lasts for 3.00 seconds,and 40 frames are uniformly sampled from it."
        "These frames are located at 0.00s,1.00s,2.00s.Please answer the following questions related to this video.\n"
    )
    tiles = loaded.image_processor.preprocess(frames, return_tensors="pt")["pixel_values"]
    prompt = as_qwen(f"<image>\n{told}What is in it?")
    tokens = say_alone(loaded, prompt, images=[tiles], modalities=["video"])
    end = one_vision.model.generation_config.eos_token_id = tokens[6]
    message = [{"type": "video", "value": str(film)}, {"type": "text", "value": "What is in it?"}]
    assert one_vision.generate(message, dataset="VIDEO") == decode(loaded, tokens[: tokens.index(end) + 1])
    still = say_alone(loaded, prompt, images=tiles[:1])
    assert tokens != still, "the frames reach the answer"
