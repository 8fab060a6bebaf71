"""A client's messages as turns of a conversation template, and which are rejected."""

from __future__ import annotations

import pytest
from PIL import Image

from llava.backends.protocol import ChatMessage, SentImage
from llava.backends.turns import write_conversation, write_parts
from llava.conversation import conv_templates
from llava.errors import UsageError
from llava.image.source import load_image
from llava.prompt import escape_image_tokens

IMAGE = SentImage(load_image(Image.new("RGB", (4, 4))))
OTHER = SentImage(load_image(Image.new("RGB", (5, 4))), "low")


def user(*parts: str | SentImage) -> ChatMessage:
    return ChatMessage("user", parts)


def assistant(*parts: str | SentImage) -> ChatMessage:
    return ChatMessage("assistant", parts)


def system(*parts: str | SentImage) -> ChatMessage:
    return ChatMessage("system", parts)


def write(template: str, *messages: ChatMessage) -> str:
    return write_conversation(messages, conv_templates[template], "<image>")[0].get_prompt()


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("Hi",), "Hi"),
        ((IMAGE, "What?"), "<image>\nWhat?"),
        ((IMAGE, OTHER, "What?"), "<image>\n<image>\nWhat?"),
        ((IMAGE,), "<image>\n"),
        (("See", IMAGE), "See\n<image>"),
        (("See\n", IMAGE, "there"), "See\n<image>\nthere"),
        ((IMAGE, "and", OTHER, "?"), "<image>\nand\n<image>\n?"),
        (("one", "two"), "one\ntwo"),
        (("", "two", ""), "two"),
        ((), ""),
    ],
)
def test_every_part_has_lines_of_its_own(parts: tuple[str | SentImage, ...], text: str) -> None:
    assert write_parts(parts, "<image>") == text


def test_a_turn_s_images_come_first_where_the_model_needs_them_there() -> None:
    messages = [
        system("Be brief."),
        user("What", IMAGE, "is this?"),
        user("And", OTHER),
        assistant("A"),
        user("Q", IMAGE),
    ]
    conversation, images = write_conversation(messages, conv_templates["smollm2"], "<image>", images_first=True)
    said = [message for _, message in conversation.messages]
    assert said == ["<image>\n<image>\nWhat\nis this?\nAnd", "A", "<image>\nQ", None]
    assert images == [IMAGE, OTHER, IMAGE]
    assert "<image>" not in conversation.system
    as_sent, same = write_conversation(messages, conv_templates["smollm2"], "<image>")
    assert as_sent.messages[0][1] == "What\n<image>\nis this?\nAnd\n<image>"
    assert same == images


def test_images_come_in_the_order_of_their_slots() -> None:
    messages = [system("A", OTHER), user(IMAGE, "Q"), assistant("A", OTHER), user("Q", IMAGE, OTHER)]
    conversation, images = write_conversation(messages, conv_templates["v1"], "<image>")
    assert images == [OTHER, IMAGE, OTHER, IMAGE, OTHER]
    assert conversation.get_prompt().count("<image>") == 5


def test_a_chat_is_what_the_template_says_it_is() -> None:
    written = write("v1", user(IMAGE, "Q1"), assistant("A1"), user("Q2"))
    conversation = conv_templates["v1"].copy()
    for role, text in zip(conversation.roles * 2, ("<image>\nQ1", "A1", "Q2", None), strict=True):
        conversation.append_message(role, text)
    assert written == conversation.get_prompt()


def test_what_a_person_typed_is_escaped_in_every_role() -> None:
    written = write("v1", system("<image>"), user("</s>"), assistant("<image>"), user("<s>"))
    for text in ("<image>", "</s>", "<s>"):
        assert escape_image_tokens(text) in written
    assert "<image>" not in written


@pytest.mark.parametrize(
    ("template", "begin"),
    [
        ("v1", "Be brief. USER: Q ASSISTANT:"),
        (
            "chatml_direct",
            "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nQ<|im_end|><|im_start|>assistant\n",
        ),
        ("qwen_1_5", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"),
        ("llava_llama_2", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nQ [/INST]"),
        ("mistral_instruct", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nQ [/INST]"),
        ("gemma_instruct", "<start_of_turn>user\nBe brief.\nQ<end_of_turn>\n<start_of_turn>model\n"),
    ],
)
def test_a_system_message_takes_the_place_of_the_templates_own(template: str, begin: str) -> None:
    assert write(template, system("Be brief."), user("Q")) == begin


def test_without_a_system_message_the_templates_own_stays() -> None:
    assert write("v1", user("Q")).startswith(conv_templates["v1"].system)


def test_messages_that_do_not_alternate_are_put_together() -> None:
    both = [system("One."), system("Two."), user("Q1"), user("Q2"), assistant("A1"), assistant("A2"), user("Q3")]
    joined = [system("One.\nTwo."), user("Q1\nQ2"), assistant("A1\nA2"), user("Q3")]
    assert write("v1", *both) == write("v1", *joined)
    late = write("v1", user("Q1"), assistant("A1"), system("Now in French."), user("Q2"))
    assert late == write("v1", user("Q1"), assistant("A1"), user("Now in French.\nQ2"))


def test_a_greeting_may_come_first() -> None:
    assert write("v1", assistant("Hello!"), user("Hi")).endswith("USER:ASSISTANT: Hello!</s>USER: Hi ASSISTANT:")


@pytest.mark.parametrize("messages", [(), (system("S"),), (user("Q"), assistant("A"))])
def test_there_has_to_be_something_to_answer(messages: tuple[ChatMessage, ...]) -> None:
    with pytest.raises(UsageError, match=r"nothing to answer\. End with a user's message"):
        write("v1", *messages)
