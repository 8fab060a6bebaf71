"""ShareGPT: conversations with ChatGPT that people shared, cleaned as Vicuna's training data was. Text only.

In this order: turns that others began or left open are cut off, and conversations that are too short, out of turn, or
about OpenAI are left out; HTML becomes Markdown; repeated conversations and, if asked for, other languages go; long
conversations are split between two pairs of turns; numbering that starts over in a list marks a broken conversion.

LLaVA-1.5's mixture has 40,688 such conversations, whose selection was not published.

Source: lm-sys/FastChat@f8d3230 fastchat/data/clean_sharegpt.py and split_long_conversation.py, @02d4581
optional_clean.py, @0283a0b filter_wrong_format.py, @0f49fe7 prepare_all.py (their order; Korean is dropped there).
Files: anon8231489123/ShareGPT_Vicuna_unfiltered and RyokoAI/ShareGPT52K on Hugging Face.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.html_markdown import html_to_markdown
from llava.data.convert.json_input import iterate_json, take
from llava.data.convert.languages import guess_language
from llava.errors import UsageError
from llava.text import find_flaw, fit_line

FORMATS = {
    "vicuna": "all languages but Korean, as Vicuna's data",
    "english": "English only",
    "all": "all languages",
}

_SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "chatgpt": "gpt"}
_BLOCKED = ("openai", "chatgpt")
_MOST_TOKENS = 2048
_TEMPLATE_TOKENS = 6  # of each turn, as in the original
_BYTES_PER_TOKEN = 4  # of an estimate
_WRONG_INDICES = re.compile(r"\n1\. [^2]*\n1\. ")

Pair = tuple[str, str]


def convert_sharegpt(source: Source, options: Options) -> Iterator[Row]:
    """Cleaned conversations of at most 2,048 tokens each, or of one pair of turns.

    Tokens are counted with the folder's tokenizer.json, which Vicuna's folder has, or else estimated from bytes.
    """
    measure = make_measure(next(iter(source.found[2]), None))
    has_parts = source.file(0).name.startswith("sg_90k_part")
    seen: set[int] = set()
    for path in (source.file(0), *(source.found[1] if has_parts else ())):
        for number, entry in iterate_json(path):
            id = str(take(entry, "id", (str, int), f"Conversation {number} of '{path}'"))
            thing = f"conversation {id}"
            pairs = _clean(entry.get("conversations"), thing, options)
            if pairs is None or not _is_wanted(pairs, thing, options):
                continue
            keys = {hash(("id", id)), hash((pairs[0][1], len(pairs)))}
            if seen & keys:
                options.leave_out("repeats another conversation", thing)
                continue
            seen |= keys
            for start, part in split_pairs(pairs, measure):
                if any(_WRONG_INDICES.search(text) for pair in part for text in pair):
                    options.leave_out("has a list that starts over", f"{thing}, from turn {start + 1} on")
                else:
                    yield make_row(f"sharegpt-{id}_{start}", None, part, "sharegpt")


def _clean(turns: Any, thing: str, options: Options) -> list[Pair] | None:
    """The conversation as pairs of question and answer, in Markdown; None if it was left out."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        options.leave_out("has no valid conversation", thing)
        return None
    said = [(_SPEAKERS.get(str(turn.get("from")), ""), turn.get("value")) for turn in turns]
    said = said[1:] if said and said[0][0] != "human" else said
    said = said[:-1] if said and said[-1][0] == "human" else said
    if len(said) < 2:
        options.leave_out("is too short", thing)
        return None
    if [speaker for speaker, _ in said] != ["human", "gpt"] * (len(said) // 2):
        options.leave_out("has speakers out of turn", thing)
        return None
    texts = [text if isinstance(text, str) else "" for _, text in said]
    if any(word in text.lower() for text in texts for word in _BLOCKED):
        options.leave_out("mentions OpenAI or ChatGPT", thing)
        return None
    cleaned = [_clean_question(text) if i % 2 == 0 else html_to_markdown(text) for i, text in enumerate(texts)]
    if not all(cleaned):
        options.leave_out("has a turn without text", thing)
        return None
    if any(find_flaw(text) is not None for text in cleaned):
        options.leave_out("holds text that is not valid Unicode", thing)
        return None
    return list(zip(cleaned[::2], cleaned[1::2], strict=True))


def _clean_question(text: str) -> str:
    """What a person typed: plain text, whose tags are what it is about, unless the page wrapped it in some."""
    return html_to_markdown(text) if text.lstrip().startswith(("<div", "<p>")) else text.strip()


def _is_wanted(pairs: list[Pair], thing: str, options: Options) -> bool:
    """Whether the conversation is in a language that the format takes."""
    if options.format == "all":
        return True
    language = guess_language("\n".join(text for pair in pairs for text in pair))
    if (language == "en") if options.format == "english" else (language != "ko"):
        return True
    options.leave_out("is not in English" if options.format == "english" else "is in Korean", thing)
    return False


def make_measure(tokenizer: Path | None) -> Callable[[str], int]:
    """A function that counts a text's tokens, with that tokenizer file, or estimates them if it is None.

    Raises:
        UsageError: the file is no tokenizer.
    """
    if tokenizer is None:
        return lambda text: -(-len(text.encode()) // _BYTES_PER_TOKEN)
    from tokenizers import Tokenizer

    try:
        loaded = Tokenizer.from_file(str(tokenizer))
    except Exception as error:  # the library raises Exception itself
        raise UsageError(f"The file '{tokenizer}' is no tokenizer: {fit_line(str(error), 80)}") from error
    return lambda text: len(loaded.encode(text).ids)


def split_pairs(pairs: list[Pair], measure: Callable[[str], int]) -> Iterator[tuple[int, list[Pair]]]:
    """(number of the first turn, pairs) of stretches that are as long as fits, the last pair included.

    The original loses the last pair where the split falls right before it.
    """
    start, total = 0, 0
    for i, pair in enumerate(pairs):
        length = sum(measure(text) + _TEMPLATE_TOKENS for text in pair)
        if i > start and total + length > _MOST_TOKENS:
            yield 2 * start, pairs[start:i]
            start, total = i, 0
        total += length
    yield 2 * start, pairs[start:]
