"""The front door gives the original's names, and its stopping criterion stops."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteriaList

from llava import mm_utils
from llava.errors import BadImage
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


def test_a_picture_is_read_from_base64() -> None:
    written = BytesIO()
    Image.new("P", (3, 2)).save(written, "PNG")
    image = load_image_from_base64(base64.b64encode(written.getvalue()))
    assert (image.size, image.mode) == ((3, 2), "P")


@pytest.mark.parametrize("text", ["bm90IGEgcGljdHVyZQ==", "A"])
def test_what_is_no_picture_in_base64_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadImage, match="not a picture in base64"):
        load_image_from_base64(text)


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


def test_a_prompt_with_pictures_is_never_taken_for_the_answer(letters: Any) -> None:
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
