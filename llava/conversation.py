"""Conversation templates: how a conversation becomes one text, and which parts of it the model generates.

Holds every template of both LLaVA repositories under its key there. A conversation is rendered once, into pieces that
are marked as targets of training or not; ``get_prompt`` joins them, and training makes its labels of them. Importing
loads no tokenizer, no image library and no network resource.

Source: haotian-liu/LLaVA@c121f04 llava/conversation.py; LLaVA-VL/LLaVA-NeXT@df17966 llava/conversation.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import CheckpointError, UsageError
from llava.page_methods import PageMethods, images_of, text_of
from llava.separators import ALWAYS_TARGETS, Piece, Turn, write_turns
from llava.separators import SeparatorStyle as SeparatorStyle  # where the original has it


@dataclasses.dataclass
class Conversation(PageMethods):
    """A template together with the messages so far.

    ``messages`` holds ``[role, message]`` lists, so that a message can be replaced in place. A message is a text, None
    for the answer to come, or a tuple ``(text, image or list of images, mode)`` of a web page, with a mode of
    ``process_image``. The first ``offset`` messages are examples that belong to the template.
    """

    system: str
    roles: Sequence[str]
    messages: list[list[Any]]
    offset: int
    sep_style: SeparatorStyle = SeparatorStyle.SINGLE
    sep: str = "###"
    sep2: str | None = None
    version: str = "Unknown"
    skip_next: bool = False
    tokenizer_id: str = ""
    tokenizer: Any = None
    stop_str: str | list[str] | None = None
    stop_token_ids: list[int] | None = None

    def get_prompt(self) -> str:
        """The conversation as one text. Raises UsageError if the template cannot express ``messages``."""
        return "".join(piece.text for piece in self.pieces())

    def pieces(self) -> list[Piece]:
        """``get_prompt()``, split where the targets of training begin and end.

        The targets are what an answered turn adds to an empty one, including its closing separator: the model
        has to generate them when a prompt ends with the empty turn. So the blank after ``ASSISTANT:`` is one.
        For CHATML and LLAMA_3 the header of an answered turn counts too, as in LLaVA-NeXT's training. Examples of the
        template (before ``offset``) are not targets.
        """
        return write_turns(self, self._turns())

    def training_pieces(self) -> list[Piece]:
        """The text of the originals' training, split like ``pieces``, from which it differs for three styles.

        SINGLE puts each turn on a line of its own after ``###`` and leaves out the template's examples; CHATML and
        LLAMA_3 close empty answers, too, and end with the last turn.
        """
        turns = self._turns()
        if self.sep_style is SeparatorStyle.SINGLE:
            turns = turns[self.offset :]
        return write_turns(self, turns, for_training=True)

    @property
    def always_targets(self) -> frozenset[str]:
        """The texts of tokens that are targets at every position in training with this template."""
        return ALWAYS_TARGETS.get(self.sep_style, frozenset())

    def append_message(self, role: str, message: Any) -> None:
        """Adds a turn; ``message`` None leaves it for the model."""
        self.messages.append([role, message])

    def copy(self) -> Conversation:
        """The same conversation with messages of its own; every other field is kept, the tokenizer by reference."""
        return dataclasses.replace(self, messages=[[role, message] for role, message in self.messages])

    def without_examples(self) -> Conversation:
        """The template alone, without any message: training uses none of its examples."""
        return dataclasses.replace(self, messages=[], offset=0)

    def _turns(self) -> list[Turn]:
        """The messages as texts, with the image of a first tuple message where the template expects it."""
        first, second = self.roles[0], self.roles[1]
        turns = [
            Turn(role, text_of(message) or "", i >= self.offset and (i % 2 == 1 if first == second else role == second))
            for i, (role, message) in enumerate(self.messages)
        ]
        if not self.messages or not isinstance(self.messages[0][1], tuple):
            return turns
        text = turns[0].text
        if len(images_of(self.messages[0][1])) > 1 and text.startswith(DEFAULT_IMAGE_TOKEN):
            return turns
        text = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if "mmtag" in self.version:
            shown = Turn(first, f"<Image>{DEFAULT_IMAGE_TOKEN}</Image>", False)
            return [shown, Turn(second, "Received.", False), turns[0]._replace(text=text), *turns[1:]]
        return [turns[0]._replace(text=f"{DEFAULT_IMAGE_TOKEN}\n{text}"), *turns[1:]]


# Released checkpoints were trained with these texts, including their odd wording and missing spaces.

_CURIOUS = "A chat between a curious {0} and an artificial intelligence assistant. "
_POLITE = _CURIOUS + "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
_TAGGED = "The visual content will be provided with the following format: <Image>visual content</Image>."
_ABLE = (
    "able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)
_SYSTEM_HUMAN = _POLITE.format("human")
_SYSTEM_USER = _POLITE.format("user")
_SYSTEM_TAGGED = _CURIOUS.format("user") + f"The assistant is {_ABLE}{_TAGGED}"
_SYSTEM_VISION = f"You are a helpful language and vision assistant. You are {_ABLE}"
_SYSTEM_SIMPLE = "Answer the questions about the visual content that the user provides."
_SYSTEM_LLAMA_2 = (
    "You are a helpful, respectful and honest assistant. "
    "Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, "
    "explain why instead of answering something not correct. "
    "If you don't know the answer to a question, please don't share false information."
)
_SYSTEM_ORCA = (
    "You are MistralOrca, a large language model trained by Alignment Lab AI. "
    "Write out your reasoning step-by-step to be sure you get the right answers!"
)
_EXAMPLE_QUESTION = "What are the key differences between renewable and non-renewable energy sources?"
_EXAMPLE_ANSWER = (
    "Renewable energy sources are those that can be replenished naturally in a relatively short amount of time, "
    "such as solar, wind, hydro, geothermal, and biomass. Non-renewable energy sources, on the other hand, "
    "are finite and will eventually be depleted, such as coal, oil, and natural gas. "
    "Here are some key differences between renewable and non-renewable energy sources:\n"
    "1. Availability: Renewable energy sources are virtually inexhaustible, "
    "while non-renewable energy sources are finite and will eventually run out.\n"
    "2. Environmental impact: Renewable energy sources have a much lower environmental impact "
    "than non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, "
    "and other negative effects.\n"
    "3. Cost: Renewable energy sources can be more expensive to initially set up, "
    "but they typically have lower operational costs than non-renewable sources.\n"
    "4. Reliability: Renewable energy sources are often more reliable "
    "and can be used in more remote locations than non-renewable sources.\n"
    "5. Flexibility: Renewable energy sources are often more flexible "
    "and can be adapted to different situations and needs, "
    "while non-renewable sources are more rigid and inflexible.\n"
    "6. Sustainability: Renewable energy sources are more sustainable over the long term, "
    "while non-renewable sources are not, and their depletion can lead to economic and social instability.\n"
)


def _colons(system: str, roles: tuple[str, str], version: str, sep2: str | None = None) -> Conversation:
    style, sep = (SeparatorStyle.TWO, " ") if sep2 else (SeparatorStyle.SINGLE, "###")
    return Conversation(system, roles, [], 0, style, sep, sep2, version)


def _instructions(system: str, sep: str = "<s>", version: str = "llama_v2") -> Conversation:
    return Conversation(system, _VICUNA, [], 0, SeparatorStyle.LLAMA_2, sep, "</s>", version)


def _marked(system: str, style: SeparatorStyle, version: str) -> Conversation:
    end = "\n" if style is SeparatorStyle.MPT else ""
    roles = (f"<|im_start|>user{end}", f"<|im_start|>assistant{end}")
    return Conversation(f"<|im_start|>system\n{system}", roles, [], 0, style, "<|im_end|>", None, version)


_HUMAN = ("Human", "Assistant")
_VICUNA = ("USER", "ASSISTANT")

conv_vicuna_v0 = dataclasses.replace(
    _colons(_SYSTEM_HUMAN, _HUMAN, "Unknown"),
    messages=[["Human", _EXAMPLE_QUESTION], ["Assistant", _EXAMPLE_ANSWER]],
    offset=2,
)
conv_vicuna_v1 = _colons(_SYSTEM_USER, _VICUNA, "v1", "</s>")
conv_llava_v0 = _colons(_SYSTEM_HUMAN, _HUMAN, "Unknown")
conv_llava_v0_mmtag = _colons(_SYSTEM_TAGGED, _HUMAN, "v0_mmtag")
conv_llava_v1 = _colons(_SYSTEM_HUMAN, _VICUNA, "v1", "</s>")
conv_llava_v1_mmtag = _colons(_SYSTEM_TAGGED, _VICUNA, "v1_mmtag", "</s>")
conv_llava_plain = Conversation("", ("", ""), [], 0, SeparatorStyle.PLAIN, "\n")

conv_llama_2 = _instructions(_SYSTEM_LLAMA_2)
conv_llava_llama_2 = _instructions(_SYSTEM_VISION)
conv_llava_llama_2_simple = _instructions(_SYSTEM_SIMPLE)
conv_llava_llama_2_mmtag = _instructions(_SYSTEM_SIMPLE + _TAGGED, version="llama_v2_mmtag")
conv_mistral_instruct = _instructions("", sep="")

conv_mpt = _marked(
    "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.",
    SeparatorStyle.MPT,
    "mpt",
)
conv_chatml_direct = _marked("Answer the questions.", SeparatorStyle.MPT, "mpt")
conv_mistral_orca = _marked(_SYSTEM_ORCA, SeparatorStyle.MPT, "mpt")
conv_mistral_zephyr = Conversation(
    "<|system|>\nYou are a helpful AI assistant.",
    ("<|user|>\n", "<|assistant|>\n"),
    [],
    0,
    SeparatorStyle.MPT,
    "</s>",
    None,
    "mpt",
)
conv_qwen = _marked("You are a helpful assistant.", SeparatorStyle.CHATML, "qwen")
conv_qwen_2_5 = _marked(
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", SeparatorStyle.CHATML, "qwen"
)
conv_smollm2 = _marked(
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face", SeparatorStyle.CHATML, "smollm2"
)
conv_gemma_instruct = Conversation(
    "",
    ("<start_of_turn>user\n", "<start_of_turn>model\n"),
    [],
    0,
    SeparatorStyle.GEMMA,
    "<end_of_turn>\n",
    None,
    "gemma",
)
conv_llava_llama_3 = Conversation(
    _SYSTEM_VISION,
    ("user", "assistant"),
    [],
    0,
    SeparatorStyle.LLAMA_3,
    "<|eot_id|>",
    None,
    "llama_v3",
    tokenizer_id="meta-llama/Meta-Llama-3-8B-Instruct",
    stop_token_ids=[128009],
)

default_conversation = conv_vicuna_v1

conv_templates: dict[str, Conversation] = {
    "default": conv_vicuna_v0,
    "v0": conv_vicuna_v0,
    "v1": conv_vicuna_v1,
    "vicuna_v1": conv_vicuna_v1,
    "llama_2": conv_llama_2,
    "mistral_instruct": conv_mistral_instruct,
    "chatml_direct": conv_chatml_direct,
    "mistral_direct": conv_chatml_direct,
    "plain": conv_llava_plain,
    "v0_plain": conv_llava_plain,
    "llava_v0": conv_llava_v0,
    "v0_mmtag": conv_llava_v0_mmtag,
    "llava_v1": conv_llava_v1,
    "v1_mmtag": conv_llava_v1_mmtag,
    "llava_llama_2": conv_llava_llama_2,
    "mpt": conv_mpt,
    # LLaVA-NeXT's additions, and its names for the two with tags.
    "llava_v0_mmtag": conv_llava_v0_mmtag,
    "llava_v1_mmtag": conv_llava_v1_mmtag,
    "llava_llama_2_simple": conv_llava_llama_2_simple,
    "llava_llama_2_mmtag": conv_llava_llama_2_mmtag,
    "llava_llama_3": conv_llava_llama_3,
    "llava_mistral_instruct": conv_mistral_instruct,
    "mistral_orca": conv_mistral_orca,
    "mistral_zephyr": conv_mistral_zephyr,
    "qwen_1_5": conv_qwen,
    "qwen_2": conv_qwen,
    "qwen_2_5": conv_qwen_2_5,
    "gemma_instruct": conv_gemma_instruct,
    # Of the talking default model. Source: HuggingFaceTB/SmolLM2-135M-Instruct tokenizer_config.json, chat_template.
    "smollm2": conv_smollm2,
}


def find_template(name: str) -> Conversation:
    """A new conversation in the template of this name. Raises UsageError for an unknown one."""
    if name not in conv_templates:
        raise UsageError(f"There is no conversation template '{name}'. The names are: {', '.join(conv_templates)}.")
    return conv_templates[name].copy()


# Patterns in a name and their templates; the first match counts.
# Source: haotian-liu/LLaVA@c121f04 llava/eval/run_llava.py; Llama 3 and Qwen, which it does not know, are added, and
# "mpt" has to begin a word, so that "prompt" does not match.
_NAME_RULES = (
    (r"llama[-_]?3(?!\d)", "llava_llama_3"),
    (r"llama-2", "llava_llama_2"),
    (r"mistral|mixtral", "mistral_instruct"),
    (r"qwen", "qwen_1_5"),
    (r"v1\.6-34b|hermes-2-yi|yi-34b", "chatml_direct"),
    (r"gemma", "gemma_instruct"),
    (r"v1", "llava_v1"),
    (r"(?<![a-z])mpt", "mpt"),
)

_FAMILIES = {
    "mistral": "mistral_instruct",
    "mixtral": "mistral_instruct",
    "qwen": "qwen_1_5",
    "mpt": "mpt",
    "gemma": "gemma_instruct",
}

# Vocabulary sizes of one family of language models, including the rows that converters append.
_VOCABULARIES = (
    (range(64000, 64256), "chatml_direct"),  # Yi
    (range(128256, 128768), "llava_llama_3"),
    (range(151643, 152128), "qwen_1_5"),
)
_END_TOKENS = {128001: "llava_llama_3", 128009: "llava_llama_3", 151643: "qwen_1_5", 151645: "qwen_1_5"}


def template_name(model_name: str, config: Any = None) -> str:
    """The key in ``conv_templates`` of a checkpoint's template.

    ``config``: its config.json as a dict or an object, or None. Decided by the first of these that is known: its own
    ``conversation_template``; the language model's type; the vocabulary's size and the end token; the name of the base
    language model; the checkpoint's own name ``model_name``, by the original's rules; whether it has the MLP projector
    of 1.5 and later. Raises CheckpointError for an unknown ``conversation_template``.
    """
    chosen = _read(config, "conversation_template")
    if chosen is not None:
        if chosen not in conv_templates:
            names = ", ".join(conv_templates)
            raise CheckpointError(f"config.json asks for the conversation template '{chosen}'. The names are: {names}.")
        return str(chosen)
    language = _read(config, "text_config")
    configs = [each for each in (language, config) if each is not None]
    kinds = " ".join(
        f"{_read(each, 'model_type') or ''} {' '.join(_read(each, 'architectures') or ())}" for each in configs
    ).lower()
    found = next((name for word, name in _FAMILIES.items() if word in kinds), None)
    if found is None:
        found = next((name for each in configs if (name := _from_tokens(each))), None)
    if found is None:
        bases = [str(_read(each, "_name_or_path") or "") for each in configs]
        found = next((name for base in [*bases, model_name] if (name := _from_name(base))), None)
    if found is None:
        modern = str(_read(config, "mm_projector_type") or "").startswith("mlp") or language is not None
        found = "llava_v1" if modern else "llava_v0"
    return found


def _from_tokens(config: Any) -> str | None:
    size = _read(config, "vocab_size")
    for sizes, name in _VOCABULARIES:
        if size in sizes:
            return name
    ends = _read(config, "eos_token_id")
    for end in ends if isinstance(ends, (list, tuple)) else (ends,):
        if end in _END_TOKENS:
            return _END_TOKENS[end]
    return None


def _from_name(path: str) -> str | None:
    """The template that the last part of a path names, or None."""
    parts = path.lower().replace("\\", "/").strip("/").split("/")
    name = "_".join(parts[-2:]) if parts[-1].startswith("checkpoint-") else parts[-1]
    return next((template for words, template in _NAME_RULES if re.search(words, name)), None)


def _read(config: Any, key: str) -> Any:
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
