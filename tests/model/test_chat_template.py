"""Transformers renders the written chat templates to the very text of ``Conversation.get_prompt``."""

from __future__ import annotations

import pytest
from jinja2.exceptions import TemplateError

from llava.conversation import conv_templates
from llava.model.chat_template import write_chat_template
from tests.tiny_tokenizers import words_and_letters

NAMES = [name for name in conv_templates if "plain" not in name]
CHATS: dict[str, list[str]] = {
    "one question": ["What is in the image?"],
    "two questions": ["What is in\nthe image?", "A cat.", "Which \"colour\"? {{ 'x' }}"],
    "an answered chat": ["Q1", " A1 ", "Q2", "A2"],
}


@pytest.fixture(scope="module")
def renderer() -> object:
    return words_and_letters("What is in the image")


def render(renderer: object, name: str, messages: list[dict[str, object]], is_open: bool, slot: str = "<image>") -> str:
    template = write_chat_template(conv_templates[name].copy(), slot)
    assert template is not None
    text = renderer.apply_chat_template(  # type: ignore[attr-defined]
        messages, chat_template=template, tokenize=False, add_generation_prompt=is_open
    )
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("texts", CHATS.values(), ids=CHATS.keys())
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_images", [0, 1, 2])
def test_the_text_is_that_of_the_conversation(renderer: object, name: str, texts: list[str], num_images: int) -> None:
    conversation = conv_templates[name].copy()
    messages: list[dict[str, object]] = []
    for i, text in enumerate(texts):
        images = num_images if i == 0 else 0
        conversation.append_message(conversation.roles[i % 2], "<image>\n" * images + text)
        parts = [{"type": "text", "text": text}, *[{"type": "image"}] * images]
        messages.append({"role": ("user", "assistant")[i % 2], "content": parts})
    is_open = len(texts) % 2 == 1
    if is_open:
        conversation.append_message(conversation.roles[1], None)
    assert render(renderer, name, messages, is_open) == conversation.get_prompt()


@pytest.mark.parametrize("name", NAMES)
def test_a_message_may_be_a_plain_text_with_the_images_in_it(renderer: object, name: str) -> None:
    conversation = conv_templates[name].copy()
    conversation.append_message(conversation.roles[0], "See <image> and <image>?")
    conversation.append_message(conversation.roles[1], None)
    messages: list[dict[str, object]] = [{"role": "user", "content": "See <image> and <image>?"}]
    assert render(renderer, name, messages, is_open=True) == conversation.get_prompt()


@pytest.mark.parametrize("name", ["llava_v1", "llava_llama_2", "chatml_direct", "qwen_1_5", "llava_llama_3"])
def test_a_system_message_takes_the_place_of_the_templates_own(renderer: object, name: str) -> None:
    conversation = conv_templates[name].copy()
    own = conversation.system.rpartition("\n")[2]
    conversation.system = conversation.system.replace(own, "Be brief.")
    conversation.append_message(conversation.roles[0], "Q")
    conversation.append_message(conversation.roles[1], None)
    messages: list[dict[str, object]] = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "Q"},
    ]
    assert render(renderer, name, messages, is_open=True) == conversation.get_prompt()


def test_marks_around_images_are_written_too(renderer: object) -> None:
    messages: list[dict[str, object]] = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]}
    ]
    text = render(renderer, "v1", messages, is_open=True, slot="<im_start><image><im_end>")
    assert text.endswith("USER: <im_start><image><im_end>\nQ ASSISTANT:")


def test_an_unknown_role_is_refused(renderer: object) -> None:
    with pytest.raises(TemplateError, match="no role tool"):
        render(renderer, "v1", [{"role": "tool", "content": "4"}], is_open=True)


def test_captions_are_no_chat() -> None:
    assert write_chat_template(conv_templates["plain"].copy(), "<image>") is None
