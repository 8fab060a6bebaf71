"""Pages of anything: what stands on them and in how many ways one asks about it, read from the files in ``pages``.

A file's grammar, line by line ("#" begins a comment)::

    list band                         values of the slot {band}, separated by ";", in the lines below
    The Foxes; Night Owls
    page concert poster
    with band                         slots that have one value on the whole page; all others have one for each fact
    fact title                        always shown, first; facts of one name are variants, one at most is shown
    > {band} LIVE                     ways to write it: " | " is between cells of a row, " // " between rows
    ? Who is playing?                 ways to ask for it
    ! {band} is playing.              ways to answer, with the values as the page writes them
    ~ The image does not say who.     an answer where no fact of the name is shown; without one, nobody asks then

Slots are those of the file's lists, of ``SLOTS``, and ranges such as {3-120}; {time2} and {3-120#2} are second values.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from itertools import groupby

from llava.model.lexical.description import describe
from llava.scratch.talking.drawn_values import (
    CITIES,
    FIELDS,
    FIRST_NAMES,
    JOBS,
    LAST_NAMES,
    LIGHT_PLATES,
    PLATES,
    STREETS,
    draw_any_price,
    draw_item,
    draw_mail,
    draw_person,
    draw_phone,
    draw_time,
)
from llava.scratch.talking.page_grids import is_named, set_in_rows
from llava.scratch.talking.seen_records import Line, Record, ask_for_option, ask_for_text, ask_unknown, place_row
from llava.synth import words

TITLE = "title"
MONTH_NAMES = "January February March April May June July August September October November December".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_ANIMALS = (
    "cat dog parrot rabbit tortoise hamster horse goat sheep cow pig duck goose hen owl eagle swan heron fox wolf bear "
    "deer otter badger hedgehog squirrel mouse bat seal dolphin whale shark salmon trout frog newt lizard snake lion "
    "tiger elephant giraffe zebra camel monkey penguin peacock donkey lynx beaver mole"
).split()


def _draw_date(rng: random.Random) -> str:
    """A date in figures, or in words with or without its year."""
    way, day, month = rng.random(), rng.randint(1, 30), rng.choice(MONTH_NAMES)
    if way < 0.35:
        return words.draw_date(rng)
    year = f" {rng.randint(1995, 2035)}" if rng.random() < 0.4 else ""
    if rng.random() < 0.3:
        month = month[:3]
    return f"{day} {month}{year}" if way < 0.75 else f"{month} {day}{',' * bool(year)}{year}"


SLOTS: dict[str, Callable[[random.Random], str]] = {
    "person": draw_person,
    "first": lambda r: r.choice(FIRST_NAMES),
    "last": lambda r: r.choice(LAST_NAMES),
    "city": lambda r: r.choice(CITIES),
    "country": FIELDS["Country"],
    "street": lambda r: f"{r.choice(LAST_NAMES)} {r.choice(STREETS)}",
    "address": FIELDS["Address"],
    "phone": draw_phone,
    "mail": draw_mail,
    "site": FIELDS["Website"],
    "time": draw_time,
    "date": _draw_date,
    "weekday": lambda r: r.choice(WEEKDAYS),
    "month": lambda r: r.choice(MONTH_NAMES),
    "year": lambda r: str(r.randint(1950, 2040)),
    "price": draw_any_price,
    "percent": lambda r: f"{r.randint(1, 99)}{r.choice(('%', ' %'))}",
    "code": words.draw_code,
    "word": lambda r: words.draw_word(r, False),
    "animal": lambda r: r.choice(_ANIMALS),
    "food": draw_item,
    "color": lambda r: r.choice(PLATES),
    "job": lambda r: r.choice(JOBS).lower() if r.random() < 0.5 else r.choice(JOBS),
}

# What a description holds wherever a value of these slots may be in it.
_SHAPES = {
    "price": r"(?i)\d[.,]\d\d|[$€£]|\beur\b|\bfree\b|\bcosts?\b|\bprices?\b",
    "phone": r"\d{3}[ -]?\d{2}|\+\d|\(\d{3}\)",
    "mail": r"@",
    "site": r"(?i)www|\.(com|org|net|co|io|de|uk|example)\b|https?",
    "percent": r"%|(?i:per ?cent|\bhalf\b)",
    "time": r"(?i)\d[:.]\d\d|\b\d+ ?[ap]\.?m\b|o'clock|\bnoon\b|midnight|\bhours?\b|\b24\b|\bh\b",
    "date": rf"(?i)\d[/.-]\d|\b\d{{4}}\b|\b({'|'.join(month[:3] for month in MONTH_NAMES)})|day\b|tomorrow|tonight",
    "weekday": r"(?i)day\b|\b(mon|tue|wed|thu|fri|sat|sun)\b|tomorrow|tonight|week|daily",
    "year": r"\d{4}",
    "person": r"\b[A-Z][\w.'-]* [A-Z]",
}

_SLOT = re.compile(r"\{([^{}]+)\}")
_RANGE = re.compile(r"(-?\d+)-(\d+)(?:#\d+)?")
_CELL_END = re.compile(r" \| | // ")
# Of the facts of a page, one of these numbers is shown beside its title, and so many that are not are asked for.
_NUMS_SHOWN, _MOST_ABSENT = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12), 3
# This share of the pages is in capitals, on a coloured ground, with its facts in another order, without a title.
_CAPITALS_SHARE, _COLOURED_SHARE, _SHUFFLED_SHARE, _UNTITLED_SHARE = 0.12, 0.25, 0.3, 0.06
# Faults of the reader: a word that lost a letter, a gap that ends no cell, a row of ornaments that are read as letters.
_CUT_SHARE, _GAP_SHARE, _ORNAMENT_SHARE = 0.07, 0.05, 0.08
_ORNAMENTS = (
    "A m A m A",
    "4 m 4 m A",
    "- - - -",
    "* * *",
    "oooooo",
    "w w w w",
    "s s e w",
    "I I I",
    "~ ~ ~",
    "x X x",
    "m",
)
_OPTION_SHARE, _LOWERED_SHARE = 0.15, 0.35


@dataclass(frozen=True)
class Fact:
    """What a page may say, and how one asks for it; see the module's docstring. ``line``: its number in the file."""

    name: str
    line: int
    shows: list[str] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)
    says: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A kind of page.

    Attributes:
        lists: the values of its file's slots.
        shared: slots with one value on the whole page.
        line: its number in the file.
    """

    name: str
    line: int
    lists: Mapping[str, Sequence[str]]
    shared: list[str] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)

    def by_name(self) -> dict[str, list[Fact]]:
        """The facts' variants by their names, in the page's order."""
        found: dict[str, list[Fact]] = {}
        for fact in self.facts:
            found.setdefault(fact.name, []).append(fact)
        return found


def read_lines(text: str, origin: str, read_line: Callable[[str, int], None]) -> None:
    """Has each line of a grammar read, with its number, but for empty lines and comments.

    Raises ValueError that names the line of ``origin`` of which ``read_line`` raised one.
    """
    for number, raw in enumerate(text.splitlines(), 1):
        if (line := raw.strip()) and not line.startswith("#"):
            try:
                read_line(line, number)
            except ValueError as error:
                raise ValueError(f"{origin}:{number}: {error}.") from None


def read_pages(text: str, origin: str) -> list[Page]:
    """The pages of a grammar. Raises ValueError that names the line of ``origin`` which cannot be read."""
    pages: list[Page] = []
    lists: dict[str, list[str]] = {}
    lines_of_lists: dict[str, int] = {}
    wanted: list[str] | None = None

    def read_line(line: str, number: int) -> None:
        nonlocal wanted
        mark, _, rest = line.partition(" ")
        rest = rest.strip()
        if mark in (">", "?", "!", "~"):
            if not pages or not pages[-1].facts:
                raise ValueError(f"'{line}' belongs to no fact")
            _check_text(mark, rest, pages[-1].lists)
            fact = pages[-1].facts[-1]
            {">": fact.shows, "?": fact.asks, "!": fact.says, "~": fact.lacks}[mark].append(rest)
        elif wanted is not None and ";" in line:
            wanted += _read_values(line)
        elif mark in ("list", "page", "fact", "with") and not rest:
            raise ValueError(f"'{mark}' has no name")
        elif mark == "list":
            wanted = lists.setdefault(rest, [])
            lines_of_lists.setdefault(rest, number)
        elif mark == "page":
            pages.append(Page(rest, number, lists))
            wanted = None
        elif mark == "with" and pages and not pages[-1].facts:
            pages[-1].shared.extend(rest.replace(",", " ").split())
            _check_text(mark, "".join(f"{{{slot}}}" for slot in pages[-1].shared), lists)
        elif mark == "fact" and pages:
            pages[-1].facts.append(Fact(rest, number))
            wanted = None
        elif wanted is not None:
            wanted += _read_values(line)
        else:
            raise ValueError(f"'{line}' is none of list, page, with, fact, >, ?, ! and ~")

    read_lines(text, origin, read_line)
    if not pages:
        raise ValueError(f"{origin} has no page.")
    for name, values in lists.items():
        if not values:
            raise ValueError(f"{origin}:{lines_of_lists[name]}: the list '{name}' is empty.")
    for page in pages:
        if not page.facts:
            raise ValueError(f"{origin}:{page.line}: '{page.name}' has no fact.")
        for fact in page.facts:
            where = f"{origin}:{fact.line}: '{fact.name}' of '{page.name}'"
            if not (fact.shows and fact.asks and fact.says):
                raise ValueError(f"{where} needs at least one '>', '?' and '!'.")
            for told in (*fact.asks, *fact.says):
                _check_slots(where, told, fact, page)
    return pages


def _read_values(line: str) -> list[str]:
    if "{" in line or "}" in line:
        raise ValueError(f"'{line}' has braces, but a value of a list is shown as it is")
    return [value.strip() for value in line.split(";") if value.strip()]


def _check_text(mark: str, text: str, lists: Mapping[str, Sequence[str]]) -> None:
    """Raises ValueError for an empty text, or cell that ``>`` shows, and for braces that belong to no slot."""
    if not all(cell.strip() for cell in (_CELL_END.split(f" {text} ") if mark == ">" else [text])):
        raise ValueError(f"'{mark} {text}' has an empty {'cell' if text else 'text'}")
    for slot in _SLOT.findall(text):
        if not _is_slot(slot, lists):
            raise ValueError(f"there is no slot {{{slot}}}")
    check_braces(text)


def check_braces(text: str) -> None:
    """Raises ValueError if a text has a brace that belongs to no slot."""
    rest = _SLOT.sub("", text)
    if "{" in rest or "}" in rest:
        raise ValueError(f"'{text}' has a brace that belongs to no slot")


def _is_slot(slot: str, lists: Mapping[str, Sequence[str]]) -> bool:
    if slot.rstrip("0123456789") in {*lists, *SLOTS} or slot in lists:
        return True
    match = _RANGE.fullmatch(slot)
    return match is not None and int(match[1]) <= int(match[2])


def _check_slots(where: str, told: str, fact: Fact, page: Page) -> None:
    """A question and an answer hold only what each way to write the fact shows."""
    for slot in set(_SLOT.findall(told)) - set(page.shared):
        for shown in fact.shows:
            if slot not in _SLOT.findall(shown):
                raise ValueError(f"{where}: {{{slot}}} of '{told}' is not in '{shown}'.")


def read_folder(name: str) -> Iterator[tuple[str, str]]:
    """Names and texts of the grammars in a folder beside this file, by their names' order."""
    folder = resources.files("llava.scratch.talking").joinpath(name)
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        yield f"{name}/{file.name}", file.read_text("utf-8")


@lru_cache(maxsize=1)
def load_pages() -> list[Page]:
    """All pages of the package."""
    return [page for name, text in read_folder("pages") for page in read_pages(text, name)]


class _Values(dict[str, str]):
    """Values of slots, each drawn when it is first needed; those of one list, or of one range, are different."""

    def __init__(self, rng: random.Random, lists: Mapping[str, Sequence[str]], shared: Mapping[str, str]) -> None:
        super().__init__(shared)
        self._rng, self._lists = rng, lists

    def __missing__(self, slot: str) -> str:
        for _ in range(20):
            value = self._draw(slot)
            if value not in self.values():
                break
        self[slot] = value
        return value

    def _draw(self, slot: str) -> str:
        base = slot if slot in self._lists else slot.rstrip("0123456789")
        if base in self._lists:
            return self._rng.choice(self._lists[base])
        if base in SLOTS:
            return SLOTS[base](self._rng)
        match = _RANGE.fullmatch(slot)
        assert match is not None, slot
        return str(self._rng.randint(int(match[1]), int(match[2])))


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with the slots' values in place of their names."""
    return _SLOT.sub(lambda match: values[match[1]], text)


def as_asked(rng: random.Random, values: Mapping[str, str]) -> dict[str, str]:
    """The values as a question names them: in one of three questions "Green tea" is "green tea"."""
    if rng.random() > _LOWERED_SHARE:
        return dict(values)
    return {slot: value[:1].lower() + value[1:] if value[1:].islower() else value for slot, value in values.items()}


def draw_page_record(rng: random.Random) -> Record:
    """A page of any kind, with its title and up to twelve facts, and questions for those and for one or two others."""
    return make_record(rng, rng.choice(load_pages()))


def make_record(rng: random.Random, page: Page, *, has_faults: bool = True) -> Record:
    """A record of a kind of page.

    ``has_faults``: some of its words and rows are as the reader sometimes reads them; values never are.
    """
    shared = _Values(rng, page.lists, {})
    for slot in page.shared:
        shared[slot]
    by_name = page.by_name()
    others = [name for name in by_name if name != TITLE]
    shown = set(rng.sample(others, min(len(others), rng.choice(_NUMS_SHOWN))))
    names = [name for name in others if name in shown]
    if rng.random() < _SHUFFLED_SHARE:
        rng.shuffle(names)
    if TITLE in by_name and (rng.random() >= _UNTITLED_SHARE or len(names) < 2):
        names.insert(0, TITLE)
    are_capitals = rng.random() < _CAPITALS_SHARE
    turns, texts, named = [], [], []
    shorts: dict[str, str] = {}
    for name in names:
        fact = rng.choice(by_name[name])
        values = _Values(rng, page.lists, shared)
        way = rng.choice(fact.shows)
        written = fill(_blur(rng, way) if has_faults else way, values)
        told: Mapping[str, str] = values
        if are_capitals:
            written, told = written.upper(), {slot: value.upper() for slot, value in values.items()}
        texts.append(written)
        named += [written] if is_named(way) else []
        asked = as_asked(rng, values)
        of_fact = [(fill(ask, asked), fill(rng.choice(fact.says), told)) for ask in _draw_some(rng, fact.asks)]
        slots = set(_SLOT.findall(fact.says[0]))
        if len(slots) == 1:
            value = told[slots.pop()]
            shorts |= {question: value for question, answer in of_fact if value in answer}
        turns += of_fact
        turns += _ask_for_value(rng, fact, values, page)
    texts = set_in_rows(rng, texts, named)
    if has_faults and rng.random() < _ORNAMENT_SHARE:
        texts.insert(rng.randrange(len(texts) + 1), rng.choice(_ORNAMENTS))
    lines = _lay_out(rng, texts)
    look = "text" if all(line.ground == "white" for line in lines) else "signs"
    record = Record(look, describe((400, 400), lines, []))
    record.turns, record.shorts = turns, shorts
    for name in _draw_some(rng, [name for name in by_name if name not in names], _MOST_ABSENT):
        fact = rng.choice(by_name[name])
        lacks = [lack for lack in fact.lacks if not _is_written(lack, record.description)]
        if lacks:
            values = _Values(rng, page.lists, shared)
            record.ask(fill(rng.choice(fact.asks), values), fill(rng.choice(lacks), values))
    if rng.random() < 0.25:
        record.ask(*ask_for_text(rng, [row for text in texts for row in text.split(" // ")]))
    ask_unknown(rng, record, rate=0.12)
    return record.shorten(rng)


def draw_phrase(rng: random.Random) -> str:
    """Two to nine words of what a page shows, as they might stand on a sign."""
    while True:
        page = rng.choice(load_pages())
        shown = rng.choice(rng.choice(page.facts).shows)
        text = fill(re.sub(r" \| | // ", " ", shown), _Values(rng, page.lists, {}))
        if 2 <= len(text.split()) <= 9:
            return text


def ask_of_other_page(rng: random.Random, record: Record) -> None:
    """Asks for what another kind of page tells, as it is asked there, and answers that the image does not say it.

    Only for a value of a slot of ``_SHAPES``, and where nothing in the description has that value's shape.
    """
    fact = rng.choice(_load_facts_of_shape())
    slot = _SLOT.findall(fact.says[0])[0].rstrip("0123456789")
    if re.search(_SHAPES[slot], record.description) is None:
        record.turns.insert(rng.randrange(len(record.turns) + 1), (rng.choice(fact.asks), rng.choice(fact.lacks)))


@lru_cache(maxsize=1)
def _load_facts_of_shape() -> list[Fact]:
    """The facts that can be lacking and have one value, of a slot of ``_SHAPES``, which no question names.

    They have the questions that ask for one such slot alone: "When does it begin?" asks for a date or for a time.
    """
    found: list[tuple[str, Fact]] = []
    slots_of: dict[str, set[str]] = defaultdict(set)
    for page in load_pages():
        for fact in page.facts:
            slots = {slot.rstrip("0123456789") for said in fact.says for slot in _SLOT.findall(said)}
            for ask in fact.asks:
                slots_of[ask].update(slots or {""})
            told = "".join((*fact.asks, *fact.lacks))
            if len(slots) == 1 and slots <= set(_SHAPES) and fact.lacks and "{" not in told:
                found += [(slot, fact) for slot in slots if all(_SLOT.search(said) for said in fact.says)]
    kept = [replace(fact, asks=[ask for ask in fact.asks if slots_of[ask] == {slot}]) for slot, fact in found]
    return [fact for fact in kept if fact.asks]


def _is_written(lack: str, description: str) -> bool:
    """Whether a page has the word that an answer does not see, in "I see no signature."."""
    unseen = re.match(r"I see no ([\w -]+?)(?: in the image| on the .+)?\.", lack)
    return unseen is not None and unseen[1].lower() in description.lower()


def _blur(rng: random.Random, shown: str) -> str:
    """A way to write a fact as the reader sometimes reads it: without a letter of a word that is no value, or with a
    gap for the end of a cell.
    """
    way = rng.random()
    if way < _CUT_SHARE:
        cut = [
            match
            for match in re.finditer(r"(?<![^\s(])\w{4,}(?![^\s,.:;!?)])", shown)
            if not _is_inside(shown, match.start())
        ]
        if cut:
            match = rng.choice(cut)
            word = rng.choice((match[0][1:], match[0][:-1]))
            return shown[: match.start()] + word + shown[match.end() :]
    elif way < _CUT_SHARE + _GAP_SHARE:
        gaps = [at for at, char in enumerate(shown) if char == " " and not _is_inside(shown, at)]
        gaps = [at for at in gaps if "|" not in shown[at - 1 : at + 2] and "/" not in shown[at - 1 : at + 2]]
        if gaps:
            at = rng.choice(gaps)
            return f"{shown[:at]} | {shown[at + 1 :]}"
    return shown


def _is_inside(shown: str, at: int) -> bool:
    """Whether a place is within a slot's braces."""
    return shown.rfind("{", 0, at) > shown.rfind("}", 0, at)


def _draw_some(rng: random.Random, ways: Sequence[str], most: int = 2) -> list[str]:
    return rng.sample(ways, min(len(ways), rng.randint(1, most)))


def _ask_for_value(rng: random.Random, fact: Fact, values: Mapping[str, str], page: Page) -> Iterator[tuple[str, str]]:
    """A question with lettered options, where the answer is a value of one of the file's lists."""
    slots = [slot for slot in set(_SLOT.findall(fact.says[0])) if slot in page.lists and slot in values]
    if len(slots) == 1 and rng.random() < _OPTION_SHARE:
        asked = Record("signs", "")
        question = fill(rng.choice(fact.asks), values)
        if values[slots[0]].lower() not in question.lower() and not question.lower().startswith(("is ", "are ", "do")):
            ask_for_option(rng, asked, question, values[slots[0]], page.lists[slots[0]])
        yield from asked.turns


def _lay_out(rng: random.Random, texts: Sequence[str]) -> list[Line]:
    rows = [row.split(" | ") for text in texts for row in text.split(" // ")]
    lines = [line for y, row in enumerate(rows) for line in place_row(y, *row)]
    return list(_colour(rng, lines))


def _colour(rng: random.Random, lines: Sequence[Line]) -> Iterator[Line]:
    """The lines as they are, on one coloured ground, or one of their rows in another colour than the others."""
    way = rng.random()
    rows = [list(row) for _, row in groupby(lines, key=lambda line: line.box[1])]
    other = rng.randrange(len(rows)) if way > 1 - _COLOURED_SHARE / 2 else -1
    ground = rng.choice(PLATES) if way < _COLOURED_SHARE or other >= 0 else "white"
    ink = "black" if ground in LIGHT_PLATES else "white"
    for y, row in enumerate(rows):
        for line in row:
            is_coloured = other < 0 or y == other
            yield replace(line, ink=ink, ground=ground) if is_coloured and ground != "white" else line
