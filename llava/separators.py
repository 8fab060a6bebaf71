"""How turns become text: one writer for each separator style.

A turn's header and its text are separate pieces, so that a conversation's pieces, joined, are its prompt, and those
with ``is_target`` are what the model has to generate: the targets of training.

Source: haotian-liu/LLaVA@c121f04 llava/conversation.py; LLaVA-VL/LLaVA-NeXT@df17966 llava/conversation.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import UsageError


class SeparatorStyle(Enum):
    """How turns are joined; ``QWEN`` is a name without a rendering, as in LLaVA-NeXT."""

    SINGLE = auto()
    TWO = auto()
    MPT = auto()
    PLAIN = auto()
    CHATML = auto()
    LLAMA_2 = auto()
    LLAMA_3 = auto()
    QWEN = auto()
    GEMMA = auto()


class Piece(NamedTuple):
    """A stretch of a rendered conversation; ``is_target``: its tokens are targets of training."""

    text: str
    is_target: bool


class Turn(NamedTuple):
    """A message to be rendered; an empty ``text`` is the turn to be filled."""

    role: str
    text: str
    is_target: bool


class Template(Protocol):
    """The fields of a conversation that the writers read."""

    system: str
    roles: Sequence[str]
    sep_style: SeparatorStyle
    sep: str
    sep2: str | None
    tokenizer: Any


def write_turns(conv: Template, turns: list[Turn], *, for_training: bool = False) -> list[Piece]:
    """The pieces of the whole text. Raises UsageError if the style cannot express ``turns``.

    ``for_training``: the text of the originals' training, which some styles write differently from a prompt.
    """
    write = (_WRITERS | _TRAINING_WRITERS if for_training else _WRITERS).get(conv.sep_style)
    if write is None:
        raise UsageError(f"There is no rendering for the separator style {conv.sep_style.name}.")
    return list(write(conv, turns))


def _write_colons(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    """SINGLE and TWO: ``role: text``; SINGLE closes with ``sep``, TWO with ``sep`` and ``sep2`` in turn."""
    closings = (conv.sep, _second_sep(conv)) if conv.sep_style is SeparatorStyle.TWO else (conv.sep, conv.sep)
    yield Piece(conv.system + conv.sep, False)
    for i, turn in enumerate(turns):
        yield Piece(turn.role + ":", False)
        if turn.text:
            yield Piece(f" {turn.text}{closings[i % 2]}", turn.is_target)


def _write_headers(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    """MPT and GEMMA: the roles contain the markup; GEMMA has no system text and requires alternating roles."""
    if conv.sep_style is SeparatorStyle.MPT:
        yield Piece(conv.system + conv.sep, False)
    for i, turn in enumerate(turns):
        if conv.sep_style is SeparatorStyle.GEMMA and turn.role != conv.roles[i % 2]:
            raise UsageError(f"Turn {i + 1} is by {turn.role!r}, but turns alternate: {conv.roles[i % 2]!r} is next.")
        yield Piece(turn.role, False)
        if turn.text:
            yield Piece(turn.text + conv.sep, turn.is_target)


def _write_chatml(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    if conv.system:
        yield Piece(f"{conv.system}{conv.sep}\n", False)
    for turn in turns:
        yield Piece(f"{turn.role}\n", bool(turn.text) and turn.is_target)
        if turn.text:
            yield Piece(f"{turn.text}{conv.sep}\n", turn.is_target)


def _write_llama_2(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    if turns and (not turns[0].text or turns[0].role != conv.roles[0]):
        raise UsageError(f"The first turn of this template has to be a question by {conv.roles[0]!r}.")
    for i, turn in enumerate(turns):
        if not turn.text:
            continue
        if i % 2:
            yield Piece(f" {turn.text} {_second_sep(conv)}", turn.is_target)
        else:
            # The tokenizer adds the first <s> itself, so only later questions begin with it.
            system = f"<<SYS>>\n{conv.system}\n<</SYS>>\n\n" if i == 0 and conv.system else ""
            yield Piece(f"{conv.sep if i else ''}[INST] {system}{turn.text} [/INST]", False)


def _write_plain(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    """PLAIN: texts and separators without roles. With one separator, an answered turn is a caption: ``<image>caption``.

    The original fails on that second message; the text is that of a sample in its first training stage, which keeps
    only the image of the question.
    Source: haotian-liu/LLaVA@c121f04 llava/train/train.py, preprocess_plain.
    """
    yield Piece(conv.system, False)
    if conv.sep2 is None and any(turn.text for turn in turns[1:]):
        slots = turns[0].text.count(DEFAULT_IMAGE_TOKEN)
        if len(turns) != 2 or not slots:
            raise UsageError(
                f"This template takes one question with {DEFAULT_IMAGE_TOKEN} and its caption, "
                f"but there are {len(turns)} turns and {slots} {DEFAULT_IMAGE_TOKEN} in the first."
            )
        yield Piece(DEFAULT_IMAGE_TOKEN * slots, False)
        yield Piece(turns[1].text + conv.sep, turns[1].is_target)
        return
    for i, turn in enumerate(turns):
        if turn.text:
            yield Piece(turn.text + (_second_sep(conv) if i % 2 else conv.sep), turn.is_target)


def _write_llama_3(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    """Llama 3's chat template, which needs no tokenizer; the template of ``conv.tokenizer`` is used instead if set.

    A conversation that does not end with an answer gets the header of the next one. (LLaVA-NeXT writes it after a
    finished conversation too, and training would have to remove it.)
    Source: meta-llama/Meta-Llama-3-8B-Instruct tokenizer_config.json, chat_template.
    """
    said = [Turn("system", conv.system, False), *(turn for turn in turns if turn.text)]
    is_open = not turns or not turns[-1].text or turns[-1].role != conv.roles[1]
    pieces = [Piece("<|begin_of_text|>", False)]
    for turn in said:
        pieces.append(Piece(f"<|start_header_id|>{turn.role}<|end_header_id|>\n\n", turn.is_target))
        pieces.append(Piece(f"{turn.text.strip()}<|eot_id|>", turn.is_target))
    if is_open:
        pieces.append(Piece("<|start_header_id|>assistant<|end_header_id|>\n\n", False))
    if conv.tokenizer is not None:
        told = [{"role": turn.role, "content": turn.text} for turn in said]
        text = conv.tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=is_open)
        if text != "".join(piece.text for piece in pieces):
            # A template other than Llama 3's: its text is used, and which part of it is an answer is unknown.
            pieces = [Piece(text, False)]
    yield from pieces


def _write_hashes(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    """SINGLE in training: each turn on a line of its own after ``###``, which is a target in every turn.

    Source: haotian-liu/LLaVA@c121f04 llava/train/train.py, _add_speaker_and_signal and _mask_targets (where ``###`` is
    the first two ids of a question).
    """
    yield Piece(f"{conv.system}\n\n", False)
    for turn in turns:
        yield Piece("###", True)
        yield Piece(f" {turn.role}: {turn.text}\n", turn.is_target)
    yield Piece("### ", True)


def _write_chatml_in_full(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    """CHATML in training: an empty answer is an answer too, and closed.

    Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py, preprocess_qwen.
    """
    if conv.system:
        yield Piece(f"{conv.system}{conv.sep}\n", False)
    for turn in turns:
        yield Piece(f"{turn.role}\n{turn.text}{conv.sep}\n", turn.is_target)


def _write_llama_3_in_full(conv: Template, turns: list[Turn]) -> Iterator[Piece]:
    """LLAMA_3 in training: an empty answer is closed, and no header of an answer to come follows.

    Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py, preprocess_llama3.
    """
    yield Piece("<|begin_of_text|>", False)
    for turn in (Turn("system", conv.system, False), *turns):
        header = f"<|start_header_id|>{turn.role}<|end_header_id|>\n\n"
        yield Piece(f"{header}{turn.text.strip()}<|eot_id|>", turn.is_target)


def _second_sep(conv: Template) -> str:
    if conv.sep2 is None:
        raise UsageError(f"The separator style {conv.sep_style.name} needs sep2 to close an answer, and it is None.")
    return conv.sep2


_WRITERS: dict[SeparatorStyle, Callable[[Template, list[Turn]], Iterator[Piece]]] = {
    SeparatorStyle.SINGLE: _write_colons,
    SeparatorStyle.TWO: _write_colons,
    SeparatorStyle.MPT: _write_headers,
    SeparatorStyle.GEMMA: _write_headers,
    SeparatorStyle.PLAIN: _write_plain,
    SeparatorStyle.CHATML: _write_chatml,
    SeparatorStyle.LLAMA_2: _write_llama_2,
    SeparatorStyle.LLAMA_3: _write_llama_3,
}

_TRAINING_WRITERS: dict[SeparatorStyle, Callable[[Template, list[Turn]], Iterator[Piece]]] = {
    SeparatorStyle.SINGLE: _write_hashes,
    SeparatorStyle.CHATML: _write_chatml_in_full,
    SeparatorStyle.LLAMA_3: _write_llama_3_in_full,
}

# Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py, preprocess_qwen and preprocess_llama3 (unmasked tokens;
# the latter also names "\n\n", but looks up no id for it, because its vocabulary spells it "ĊĊ").
ALWAYS_TARGETS: dict[SeparatorStyle, frozenset[str]] = {
    SeparatorStyle.CHATML: frozenset({"<|im_start|>", "<|im_end|>", "\n"}),
    SeparatorStyle.LLAMA_3: frozenset({"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}),
}
