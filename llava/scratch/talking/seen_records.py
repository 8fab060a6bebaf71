"""``Record``: what the towers would have seen of an image, and turns about it. No image is drawn.

The modules beside this one draw records of each kind; here is what they share, above all the questions that an image
does not answer. The invariant of all: an answer's values are in the description as the answer writes them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from llava.model.lexical.nouns import add_article
from llava.scratch.talking.drawn_values import FIRST_NAMES, LAST_NAMES, MONTHS, STREETS
from llava.scratch.talking.off_topic import ask_for_presence, ask_off_topic

Turns = list[tuple[str, str]]

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NO_TEXT = ("I see no text in the image.", "I see no text in the image.", "There is no text in the image.")
_ASKS_TO_READ = (
    "Read the text.;Read the text.;Read all the text.;Read it.;What does it say?;What does it say?;What does this say?;"
    "What does the sign say?;What does the text say?;What is written here?;What is written in the image?;"
    "What is written on it?;What text is in the image?;What text do you see?;What can you read?;What words are there?;"
    "Transcribe the text.;What letters do you see?;Which words can you read in the photo?;Read the sign."
).split(";")
_ASKS_FOR_ANY_TEXT = (
    "Is there any text?;Is there any text in the image?;Is there text?;Do you see any text?;Is there any writing?;"
    "Can you read any text?;Is there a sign?;Are there any words or letters?;Is anything written on it?;"
    "Does it say anything?"
).split(";")
ASKS_FOR_DESCRIPTION = (
    "Describe the image.",
    "Describe the picture.",
    "What is in the picture?",
    "What do you see?",
    "What is in this image?",
    "What does the image show?",
    "What is this?",
    "Describe this image in one sentence.",
    "What is shown here?",
    "What can you see in this photo?",
    "Tell me what you see.",
    "What is the main thing in the picture?",
    "What am I looking at?",
    "What is in this photo? Answer in one sentence.",
)

# How an answer in a word is asked for: most often as in LLaVA-1.5's data (section 3.2 of its paper).
_IN_A_WORD = "Answer the question using a single word or phrase."
_SHORTLY = (f"\n{_IN_A_WORD}", f"\n{_IN_A_WORD}", f"\n{_IN_A_WORD}", f" {_IN_A_WORD}", " Answer with one word.",
            " One word only, please.", " Short answer.", " Just the answer.")  # fmt: skip
# Words of these questions that are no sign of an answer.
_FILLERS = frozenset("who what where when how which is it the of was does do a on this like much many".split())
# A sign's few words are told as they are read, a page's rows apart.
_MOST_SENTENCE_ROWS, _MOST_SENTENCE_CHARACTERS = 3, 60
# What people ask documents for.
_ASKED_OF_DOCUMENTS = (
    "total;price;telephone number;phone number;date;name;address;e-mail address;title;time;room number;invoice number;"
    "discount;tax;website;opening hours;price of the coffee;age;flight number;seat;fax number;password;supplier;"
    "sender;author;duration;deadline;weight;height;name of the cashier;name of the teacher;customer number;street;"
    "quantity;color code;distance;speed;birthday;nationality;signature;delivery date;warranty;username;size;version"
).split(";")

_AMOUNT, _CLOCK = r"[$€£]|\d\.\d\d\b", r"\d:\d\d|\b\d+ [ap]m\b"
_PHONE = r"\d{3}[ /-]?\d{2}|\+\d\d? \d|\(\d{3}\)|\d\d \d\d \d\d"
_STREET = rf"(?i:\b({'|'.join(STREETS)}|hall|rue|via|calle|avenida)\b|(straat|weg|gasse|gatan|strasse) \d)"
_MAIL, _SITE = r"@", r"\bwww\.|https?:|\w\.[a-z]{2,7}\b"
# By a word of what is asked: how it looks where the image does not call it by that word.
_LOOKS = {
    "total": _AMOUNT,
    "price": _AMOUNT,
    "tax": _AMOUNT,
    "discount": _AMOUNT,
    "phone": _PHONE,
    "telephone": _PHONE,
    "date": rf"\d[/.-]\d\d[/.-]|\d/\d|\b\d{{4}}\b|\b({'|'.join(MONTHS)})\b",
    "time": _CLOCK,
    "hours": _CLOCK,
    "name": rf"\b({'|'.join((*FIRST_NAMES, *LAST_NAMES))})\b",
    "place": _STREET,
    "address": _STREET,
    "e-mail": _MAIL,
    "website": _SITE,
    "title": '"|Text',
    "seat": r"\b\d+[A-F]\b",
    "room": r"\broom\b|\b\d{3}\b",
    "flight": r"\b[A-Z]{2} ?\d{2,}\b",
    "number": r"\b\d{4,}\b",
}


@dataclass
class Line:
    """A line of text that was read; its box is (left, top, right, bottom) in px, and its colours are names."""

    text: str
    box: tuple[float, float, float, float]
    ink: str = "black"
    ground: str = "white"


@dataclass
class Drawn:
    """An object that was found, such as a red star; its box as a line's."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass
class Record:
    """What was seen of an image, and what is said about it.

    Attributes:
        look: the kind of image, by which its things are chosen: "shapes", "signs", "text" or "chart".
        description: as ``llava.model.lexical.description`` writes it.
        shorts: by the question, its answer in a word or a phrase, where it has one.
    """

    look: str
    description: str
    turns: Turns = field(default_factory=list)
    shorts: dict[str, str] = field(default_factory=dict)

    def ask(self, question: str, answer: str, short: str = "") -> None:
        """Adds a turn; ``short``: its answer in a word or a phrase, which counts if the answer says it so."""
        self.turns.append((question, answer))
        if short and short.lower() in answer.lower():
            self.shorts[question] = short

    def ask_shortly(self, rng: random.Random, share: float) -> Record:
        """This record, asking for a word or a phrase in this share of the turns that have one, as LLaVA's data do."""
        for i, (question, _) in enumerate(self.turns):
            short = self.shorts.get(question, "")
            if short and rng.random() < share:
                self.turns[i] = question + rng.choice(_SHORTLY), short
        return self

    def shorten(self, rng: random.Random, limit: int = 10) -> Record:
        """This record with at most ``limit`` of its turns, in random order, no question twice."""
        rng.shuffle(self.turns)
        self.turns = list({turn[0]: turn for turn in self.turns}.values())[:limit]
        return self


def place_row(row: int, *texts: str) -> list[Line]:
    """Black lines of text side by side, in a row that is counted from 0 at the top."""
    return [Line(text, (10.0 + 100 * x, 30.0 * row, 90.0 + 100 * x, 30.0 * row + 20)) for x, text in enumerate(texts)]


def pick(rng: random.Random, *ways: str) -> str:
    """One of several ways to say something."""
    return rng.choice(ways)


def quote(rng: random.Random, text: str) -> str:
    """A text as an answer quotes it: in one of three cases in quotation marks."""
    return rng.choice((f'"{text}"', text, text))


def ask_description(rng: random.Random) -> str:
    """A request for a description."""
    return rng.choice(ASKS_FOR_DESCRIPTION)


def ask_for_text(rng: random.Random, rows: Sequence[str]) -> tuple[str, str]:
    """A request to read, and the first six rows of the text."""
    question = pick(rng, "Read all the text.", "What text is in the picture?", "What does it say?",
                    "What is written here?", "What is written in the picture?", "What can you read?")  # fmt: skip
    shown = [row.replace(" | ", " ") for row in rows[:6]]
    if len(rows) <= _MOST_SENTENCE_ROWS and sum(map(len, shown)) < _MOST_SENTENCE_CHARACTERS:  # it is one sentence
        return question, f"It says {' '.join(shown)}."
    return question, f"It says: {' / '.join(shown)}"


def ask_where_no_text_is(rng: random.Random) -> tuple[str, str]:
    """A request to read, or a question whether there is text, where there is none."""
    if rng.random() < 0.65:
        return rng.choice(_ASKS_TO_READ), rng.choice(_NO_TEXT)
    return rng.choice(_ASKS_FOR_ANY_TEXT), f"No, {_NO_TEXT[0]}"


def is_shown(what: str, known: str) -> bool:
    """Whether a description may hold what is asked for, such as "phone number", by a word of it or by its look."""
    lower = known.lower()
    for word in what.lower().split():
        if word not in _FILLERS and word in lower:
            return True
    looks = [_LOOKS[word] for word in what.lower().split() if word in _LOOKS]
    return bool(looks) and re.search(looks[0], known) is not None


def ask_unknown(rng: random.Random, record: Record, rate: float, known: str = "") -> None:
    """Adds, at ``rate`` each, a question off the topic, one whether something is there, and one for what is lacking.

    ``known``: what is known of the image beside its description, such as the columns of a table without a head.
    """
    known = f"{record.description} {known}"
    for ask in (ask_off_topic, ask_for_presence, ask_for_missing):
        turn = ask(rng, known) if rng.random() < rate else None
        if turn is not None and not is_shown(turn[0].rstrip("?"), known):
            record.ask(*turn)


def ask_for_option(rng: random.Random, record: Record, question: str, right: str, others: Sequence[str]) -> None:
    """Adds a question with two to four lettered options, as benchmarks ask it; none where there is no other option."""
    wrong = list(dict.fromkeys(other for other in others if other.lower() != right.lower()))
    if not wrong:
        return
    options = [right, *rng.sample(wrong, min(len(wrong), 3))]
    rng.shuffle(options)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))
    asked = "Answer with the option's letter from the given choices directly."
    record.ask(f"{question}\n{listed}\n{asked}", "ABCD"[options.index(right)])


def ask_for_missing(rng: random.Random, known: str) -> tuple[str, str] | None:
    """A question for what an image lacks, and the answer that says so; None where ``known``, its description, may hold
    what was drawn.
    """
    what = rng.choice(_ASKED_OF_DOCUMENTS)
    if is_shown(what, known):
        return None
    ways = (f"Can you tell me the {what}?", f"Is there {add_article(what)}?", f"Which {what} is given?")
    return pick(rng, *[f"What is the {what}?"] * 2, *ways), say_missing(rng, what)


def say_missing(rng: random.Random, what: str) -> str:
    """The answer that the image lacks what was asked for."""
    return pick(rng, f"I see no {what} in the image.", f"The image shows no {what}.")
