"""The front door gives the original's names, and its stopping criterion stops."""

from __future__ import annotations

import base64
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteriaList

from llava import mm_utils
from llava.errors import BadImage, UsageError
from llava.image.pixels import ImageProcessor
from llava.mm_utils import KeywordsStoppingCriteria, get_model_name_from_path, load_image_from_base64
from tests import tiny_tokenizers


@pytest.fixture(scope="module")
def letters() -> Any:
    return tiny_tokenizers.words_and_letters("A cat sat")


def ids_of(tokenizer: Any, *texts: str) -> torch.Tensor:
    return torch.tensor([tokenizer(text, add_special_tokens=False).input_ids for text in texts])


@pytest.mark.parametrize("name", mm_utils.__all__)
def test_every_name_of_the_original_is_there(name: str) -> None:
    assert callable(getattr(mm_utils, name))


@pytest.mark.parametrize(
    ("path", "name"),
    [("liuhaotian/llava-v1.5-7b", "llava-v1.5-7b"), ("/models/llava-v1.5-7b/", "llava-v1.5-7b"), ("llava", "llava"),
     ("/runs/llava-ft/checkpoint-400/", "llava-ft_checkpoint-400"), ("checkpoint-400", "checkpoint-400"),
     ("/checkpoint-400", "checkpoint-400"), ("", "")],
)  # fmt: skip
def test_a_model_is_named_after_its_folder(path: str, name: str) -> None:
    assert get_model_name_from_path(path) == name


def test_an_image_is_read_from_base64() -> None:
    written = BytesIO()
    Image.new("P", (3, 2)).save(written, "PNG")
    image = load_image_from_base64(base64.b64encode(written.getvalue()))
    assert (image.size, image.mode) == ((3, 2), "P")


@pytest.mark.parametrize("text", ["bm90IGEgcGljdHVyZQ==", "A"])
def test_what_is_no_image_in_base64_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadImage, match="not an image in base64"):
        load_image_from_base64(text)


def test_base64_that_would_start_ghostscript_or_inflate_without_bounds_is_no_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)  # Pillow's own, which benchmarks' code lifts
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with Image.open(BytesIO(drawing)) as opened:
        assert opened.format == "EPS", "Pillow would take it"
    written = BytesIO()
    Image.new("1", (20_000, 20_000)).save(written, "PNG")
    for data in (drawing, written.getvalue()):
        with pytest.raises(BadImage, match="not an image in base64"):
            load_image_from_base64(base64.b64encode(data))


@pytest.mark.parametrize("includes_prompt", [False, True])
def test_a_keyword_is_found_with_and_without_the_prompt_before_the_answer(letters: Any, includes_prompt: bool) -> None:
    prompt = ids_of(letters, "A long ### question")
    criterion = KeywordsStoppingCriteria(["###"], letters, prompt)
    found = []
    answer = ids_of(letters, "A cat.###")
    for end in range(1, answer.shape[1] + 1):
        output = torch.cat([prompt, answer[:, :end]], dim=1) if includes_prompt else answer[:, :end]
        found.append(bool(criterion(output, None)))
    assert found == [False] * (answer.shape[1] - 1) + [True]


def test_a_prompt_with_images_is_never_taken_for_the_answer(letters: Any) -> None:
    prompt = torch.tensor([[1, -200, 5]])
    criterion = KeywordsStoppingCriteria(["</s>"], letters, prompt)
    assert not criterion(ids_of(letters, "cat"), None)
    assert criterion(torch.tensor([[7, 8, 9, 2]]), None)
    assert not criterion(torch.tensor([[1, -200, 5]]), None)
    assert not criterion(torch.empty((1, 0), dtype=torch.long), None)


def test_a_special_token_is_a_keyword_though_it_has_no_text(letters: Any) -> None:
    criterion = KeywordsStoppingCriteria(["</s>"], letters, torch.tensor([[1]]))
    assert criterion.keyword_ids == [[2]]
    assert criterion(torch.tensor([[9, 2]]), None)
    assert criterion.call_for_batch(torch.tensor([[9, 2]]), None) is True


def test_a_keyword_inside_the_last_token_is_found(letters: Any) -> None:
    criterion = KeywordsStoppingCriteria(["ca"], letters, torch.tensor([[1]]))
    assert criterion(ids_of(letters, "A cat"), None)


def test_each_row_of_a_batch_ends_by_itself(letters: Any) -> None:
    criterion = KeywordsStoppingCriteria(["###", "cat"], letters, ids_of(letters, "ab", "cd"))
    ends = criterion(ids_of(letters, "x###", "y##z"), None)
    assert ends.tolist() == [True, False]
    assert ends.dtype == torch.bool


def test_transformers_ends_a_generation_with_it(letters: Any) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(letters), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                         num_attention_heads=2, pad_token_id=0, eos_token_id=None, bos_token_id=1)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    prompt = ids_of(letters, "A cat", "A sat")
    free = model.generate(prompt, max_new_tokens=8, do_sample=False)
    third = letters.decode(free[0, prompt.shape[1] + 2].item())
    criterion = KeywordsStoppingCriteria([third], letters, prompt[:1])
    stopped = model.generate(
        prompt[:1], max_new_tokens=8, do_sample=False, stopping_criteria=StoppingCriteriaList([criterion])
    )
    text = letters.decode(stopped[0, prompt.shape[1] :])
    assert third in text
    assert stopped.shape[1] <= prompt.shape[1] + 3


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right and green downwards, so that a pixel tells where it was."""
    image = Image.new("RGB", (width, height))
    image.putdata([(x * 255 // width, y * 255 // height, 0) for y in range(height) for x in range(width)])
    return image


@pytest.mark.parametrize("size", [(100, 50), (50, 100), (60, 60)])
def test_the_middle_of_an_image_is_cut_out(size: tuple[int, int]) -> None:
    cut = mm_utils.resize_and_center_crop(gradient(*size), 20)
    assert cut.size == (20, 20)
    longer = 0 if size[0] > size[1] else 1
    assert cut.getpixel((10, 10))[longer] == pytest.approx(128, abs=10)


def test_an_image_stands_in_the_middle_of_the_canvas_of_its_shape() -> None:
    padded = mm_utils.auto_pad_images(Image.new("RGB", (90, 50), "red"), [30, 60, 120])
    assert padded.size == (120, 60)  # 2 to 1 is nearest to 1.8 to 1
    # As wide as the canvas it would be higher than it, so the ends are cut off.
    assert padded.getpixel((0, 0)) == padded.getpixel((119, 59)) == (255, 0, 0)
    narrow = mm_utils.auto_pad_images(Image.new("RGB", (22, 100), "red"), [30, 120])
    assert narrow.size == (30, 120)
    assert narrow.getpixel((0, 60)) == (0, 0, 0)
    assert narrow.getpixel((15, 60)) == (255, 0, 0)
    with pytest.raises(UsageError, match="grid_params is empty"):
        mm_utils.auto_pad_images(narrow, [])


def test_squares_are_cut_row_by_row_and_what_is_left_over_is_shared() -> None:
    image = gradient(70, 30)
    pieces = mm_utils.extract_patches(image, 20, 0.0)
    corners = [(5, 5), (25, 5), (45, 5)]
    assert [piece.tobytes() for piece in pieces] == [image.crop((x, y, x + 20, y + 20)).tobytes() for x, y in corners]
    assert len(mm_utils.extract_patches(image, 20, 0.5)) == 6 * 2
    with pytest.raises(UsageError, match="0 px"):
        mm_utils.extract_patches(image, 0, 0)


def test_high_resolution_is_the_whole_image_and_its_squares() -> None:
    processor = ImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    whole = mm_utils.process_highres_image(gradient(50, 30), processor, "28,56")
    assert whole.shape == (5, 3, 28, 28)
    settings = SimpleNamespace(image_crop_resolution=56, image_split_resolution=28, image_processor=processor)
    split = mm_utils.process_highres_image_crop_split(gradient(90, 60), settings)
    assert split.shape == (4, 3, 28, 28)
    assert torch.equal(split, mm_utils.process_highres_image_crop_split(gradient(90, 60), settings, processor))
