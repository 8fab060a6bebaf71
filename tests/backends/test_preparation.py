"""One function prepares every question, whether it is a conversation, a finished prompt or a training sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from llava.answer import write_chat
from llava.backends.preparation import prepare
from llava.conversation import conv_templates, find_template
from llava.errors import ContextTooLong, UsageError
from llava.image.source import LoadedImage, load_image
from llava.model.checkpoint import LoadedModel, load_model
from llava.sampling import Sampling


@pytest.fixture(scope="module")
def loaded(next_folder: Path) -> LoadedModel:
    return load_model(next_folder)


@pytest.fixture(scope="module")
def image(photo: Path) -> LoadedImage:
    return load_image(photo)


def test_a_conversation_and_its_text_are_the_same_prompt(loaded: LoadedModel, image: LoadedImage) -> None:
    chat = write_chat(loaded, [("What is this?", 1, "A cat."), ("And this?", 1, None)])
    of_chat = prepare(loaded, chat, [image, image], Sampling())
    of_text = prepare(loaded, chat.get_prompt(), [image, image], Sampling())
    assert of_chat.prompt == of_text.prompt
    assert of_chat.plans == of_text.plans
    assert of_chat.positions == (14, 14)
    assert of_chat.prompt_tokens == of_chat.prompt.num_positions


def test_a_finished_prompt_does_not_end_with_the_templates_separator(loaded: LoadedModel) -> None:
    chat = write_chat(loaded, [("What?", 0, None)], "v0")
    assert list(prepare(loaded, chat, [], Sampling()).stop_texts) == ["###"]
    assert list(prepare(loaded, chat.get_prompt(), [], Sampling()).stop_texts) == []


def test_the_limit_of_an_answer_is_the_requests_or_the_contexts(loaded: LoadedModel) -> None:
    chat = write_chat(loaded, [("What?", 0, None)])
    short = prepare(loaded, chat, [], Sampling(max_new_tokens=3))
    long = prepare(loaded, chat, [], Sampling(max_new_tokens=10**6))
    assert (short.sampling.max_new_tokens, short.limit) == (3, "length")
    assert (long.sampling.max_new_tokens, long.limit) == (loaded.context_tokens - long.prompt_tokens, "context")


@pytest.mark.parametrize("is_text", [False, True])
def test_a_prompt_with_another_number_of_images_or_too_many_tokens_is_refused(
    loaded: LoadedModel, image: LoadedImage, is_text: bool
) -> None:
    chat = write_chat(loaded, [("What?", 2, None)])
    with pytest.raises(UsageError, match="has 2 <image>, but there are 1 images"):
        prepare(loaded, chat.get_prompt() if is_text else chat, [image], Sampling())
    chat = write_chat(loaded, [("What? " * 3000, 1, None)])
    with pytest.raises(ContextTooLong, match="The text alone takes"):
        prepare(loaded, chat.get_prompt() if is_text else chat, [image], Sampling())


def test_a_template_is_found_by_its_name_and_is_a_new_conversation_each_time() -> None:
    first = find_template("vicuna_v1")
    first.append_message("USER", "Hi")
    assert find_template("vicuna_v1") == conv_templates["vicuna_v1"]
    with pytest.raises(UsageError, match=r"no conversation template 'klingon'\. The names are: default, v0,"):
        find_template("klingon")
