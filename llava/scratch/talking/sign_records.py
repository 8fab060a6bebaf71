"""Records of signs, each with its colours, and of lines of text, one of which may have a colour of its own."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

from llava.model.lexical.description import describe
from llava.model.lexical.nouns import add_article
from llava.scratch.talking.drawn_values import LIGHT_PLATES, PLATES, SIGNS, draw_texts
from llava.scratch.talking.page_grammar import draw_phrase
from llava.scratch.talking.seen_records import (
    Line,
    Record,
    ask_description,
    ask_for_option,
    ask_unknown,
    pick,
    place_row,
    quote,
)
from llava.synth import words
from llava.text import list_all

# Requests to read all that there is.
_READ = (
    "What does it say?;What is written?;Read the text.;What is written in the photo?;What text is in the image?;"
    "What does the text say?;What text do you see?;Can you read it?;What can you read?;What is written here?;"
    "What does the image say?;What is the text?;What does it say here?;Which words are there?"
).split(";")
# Of the records of signs, those of a line that is on no sign.
_PLAIN_SHARE = 0.25
# Of the signs, those whose rows are parts of one text.
_BROKEN_SHARE = 0.6
_SIGN_WAYS = ("What does the {} say?", "What is written on the {}?", "Read the {}.", "Can you read the {}?",
              "What's on the {}?", "What does it say on the {}?", "What does the {} tell me?")  # fmt: skip
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def draw_sign_record(rng: random.Random) -> Record:
    """One line of plain text, a sign of one or two lines, or two to four signs, buttons or labels of one line each."""
    if rng.random() < _PLAIN_SHARE:
        return _draw_plain_record(rng)
    count = rng.choice((1, 1, 1, 1, 2, 2, 3, 4))
    noun = rng.choice(("sign", "sign", "button", "label") if count > 1 else ("sign", "sign", "label", "poster"))
    texts = draw_texts(rng, count) if count > 1 else _draw_rows(rng)
    grounds = rng.sample(PLATES, count)
    inks = [rng.choice(("black", "black", "blue", "red")) if on in LIGHT_PLATES else "white" for on in grounds]
    lines = []
    for i, text in enumerate(texts):
        [line] = place_row(i, text)
        lines.append(replace(line, ink=inks[min(i, count - 1)], ground=grounds[min(i, count - 1)]))
    record = Record("signs", describe((400, 300), lines, []))
    if count == 1:
        _ask_about_sign(rng, record, noun, lines)
    else:
        _ask_about_signs(rng, record, noun, lines)
    _ask_for_word(rng, record, texts)
    ask_unknown(rng, record, rate=0.5)
    return record.shorten(rng)


def _draw_rows(rng: random.Random) -> list[str]:
    """The rows of one sign: one or two texts, or one text of several words, broken anywhere."""
    if rng.random() < _BROKEN_SHARE:
        text = draw_phrase(rng) if rng.random() < 0.6 else rng.choice(SIGNS)
        parts = text.upper().split() if rng.random() < 0.25 else text.split()
        breaks = sorted(rng.sample(range(1, len(parts)), min(len(parts) - 1, rng.choice((1, 1, 1, 2, 2, 3)))))
        return [" ".join(parts[a:b]) for a, b in itertools.pairwise([0, *breaks, len(parts)])]
    return draw_texts(rng, rng.choice((1, 1, 1, 2)))


def _draw_plain_record(rng: random.Random) -> Record:
    """One word, or a line of a few, in black on white, and nothing else."""
    [text] = draw_texts(rng, 1)
    record = Record("signs", describe((400, 300), place_row(0, text), []))
    noun, this_is, does = ("word", "is this", "does") if len(text.split()) == 1 else ("words", "are these", "do")
    ways = (*_READ, f"What {noun} {this_is}?", f"Which {noun} can you read?", f"Read the {noun}.",
            f"What {does} the {noun} say?", *[way.format("sign") for way in _SIGN_WAYS])  # fmt: skip
    for question in rng.sample(ways, 6):
        answers = (f"It says {quote(rng, text)}.", f"The text says {quote(rng, text)}.", f"It says {text}.")
        record.ask(question, pick(rng, *answers))
    question = pick(rng, "Is there any text?", "Do you see any text?", "Is there any writing?")
    record.ask(question, f"Yes, it says {quote(rng, text)}.")
    record.ask(ask_description(rng), f"The image shows the {noun} {quote(rng, text)}.")
    record.ask(pick(rng, "What color is the text?", "What color are the letters?"), "The text is black.")
    _ask_for_word(rng, record, [text])
    ask_unknown(rng, record, rate=0.3)
    return record.shorten(rng)


def _ask_about_sign(rng: random.Random, record: Record, noun: str, lines: Sequence[Line]) -> None:
    text, ink, ground = " ".join(line.text for line in lines), lines[0].ink, lines[0].ground
    ways = (*_READ, *[way.format(noun) for way in _SIGN_WAYS])
    for question in rng.sample(ways, 2):
        record.ask(question, pick(rng, f"The {noun} says {quote(rng, text)}.", f"It says {quote(rng, text)}."))
    question = pick(rng, "Is there any text?", "Do you see any text?", f"Is there a {noun}?", "Is there any writing?")
    record.ask(question, f"Yes, the {noun} says {quote(rng, text)}.")
    record.ask(f"What color is the {noun}?", f"The {noun} is {ground}.")
    ask_for_option(rng, record, f"What color is the {noun}?", ground, PLATES)
    ask_for_option(rng, record, f"What does the {noun} say?", text, [text, *draw_texts(rng, 3)])
    record.ask(pick(rng, "What color is the text?", "What color are the letters?"), f"The text is {ink}.")
    shows = f"The image shows {add_article(ground)} {noun} that says {quote(rng, text)}"
    record.ask(ask_description(rng), f"{shows}, in {ink} letters." if rng.random() < 0.5 else f"{shows}.")


def _ask_about_signs(rng: random.Random, record: Record, noun: str, lines: Sequence[Line]) -> None:
    for line in rng.sample(lines, 2):
        question = pick(rng, "What does the {} {} say?", "What is written on the {} {}?", "Read the {} {}.")
        record.ask(question.format(line.ground, noun), f"The {line.ground} {noun} says {quote(rng, line.text)}.")
    ask_for_option(rng, record, f"What does the {line.ground} {noun} say?", line.text, [each.text for each in lines])
    line = rng.choice(lines)
    record.ask(f"What color is the {noun} {line.text}?", f"The {noun} {quote(rng, line.text)} is {line.ground}.")
    record.ask(f"How many {noun}s are there?", f"There are {len(lines)} {noun}s.")
    listed = list_all([f"{add_article(line.ground)} {noun} that says {line.text}" for line in lines])
    record.ask(ask_description(rng), f"There are {len(lines)} {noun}s: {listed}.")


def _ask_for_word(rng: random.Random, record: Record, texts: Sequence[str]) -> None:
    held = [word.strip(".,:") for word in " ".join(texts).split()]
    word = rng.choice(held) if rng.random() < 0.5 else words.draw_word(rng, False)
    question = pick(rng, 'Does it say "{}"?', "Is the word {} in the image?", "Does the text contain {}?").format(word)
    holds = word.lower() in [other.lower() for other in held]
    record.ask(question, f"Yes, the text contains {word}." if holds else f"No, the text does not contain {word}.")


def draw_lines_record(rng: random.Random) -> Record:
    """One to eight lines of text, of which one may have a colour of its own."""
    texts = draw_texts(rng, rng.randint(1, 8))
    usual = rng.choice(("black", "black", "black", "blue", "brown"))
    lines = [replace(line, ink=usual) for i, text in enumerate(texts) for line in place_row(i, text)]
    if rng.random() < 0.6:
        odd = rng.randrange(len(lines))
        other = rng.choice([c for c in ("red", "green", "blue", "purple", "orange", "pink") if c != usual])
        lines[odd] = replace(lines[odd], ink=other)
    record = Record("text", describe((400, 300), lines, []))
    _ask_for_lines(rng, record, lines)
    _ask_for_colours(rng, record, lines)
    count = "1 line" if len(lines) == 1 else f"{len(lines)} lines"
    question = pick(rng, "How many lines are there?", "How many lines of text are there?", "Count the lines.")
    record.ask(question, f"There {'is' if len(lines) == 1 else 'are'} {count} of text.")
    question = pick(rng, "Read all the text.", "What text is in the picture?", "What is written in the picture?",
                    "What does the text say?", "Transcribe the text.")  # fmt: skip
    record.ask(question, f"The text says: {' / '.join(texts)}")
    about = f"It is a page with {count} of text. The first says {quote(rng, texts[0])}."
    record.ask(ask_description(rng), f"The image shows text: {' / '.join(texts)}" if len(texts) < 3 else about)
    _ask_for_word(rng, record, texts)
    ask_unknown(rng, record, rate=0.5)
    return record.shorten(rng)


def _ask_for_lines(rng: random.Random, record: Record, lines: Sequence[Line]) -> None:
    for i in rng.sample(range(len(lines)), min(4, len(lines))):
        ordinal, text = f"{_ORDINALS[i]} line", quote(rng, lines[i].text)
        if rng.random() < 0.7:
            question = pick(rng, f"What does the {ordinal} say?", f"What is written on the {ordinal}?",
                            f"Read the {ordinal}.", f"What is on the {ordinal}?")  # fmt: skip
            record.ask(question, f"The {ordinal} says {text}.")
        else:
            record.ask(pick(rng, f"Read line {i + 1}.", f"What is on line {i + 1}?"), f"Line {i + 1} says {text}.")
    question = pick(rng, "What does the last line say?", "What is written at the bottom?")
    record.ask(question, f"The last line says {quote(rng, lines[-1].text)}.")


def _ask_for_colours(rng: random.Random, record: Record, lines: Sequence[Line]) -> None:
    inks = [line.ink for line in lines]
    odd = [line for line in lines if inks.count(line.ink) == 1 and line.ink not in ("black", "brown")]
    if len(odd) == 1:
        [line] = odd
        question = pick(rng, f"What does the {line.ink} line say?", f"What is written in {line.ink}?")
        record.ask(question, f"The {line.ink} line says {quote(rng, line.text)}.")
        if len(lines) > 1:
            question = pick(rng, "Which line has another color?", "Which text is in color?")
            record.ask(question, f"The line {quote(rng, line.text)} is {line.ink}.")
    line = rng.choice(lines)
    record.ask(f"What color is the text {line.text}?", f"The text {quote(rng, line.text)} is {line.ink}.")
