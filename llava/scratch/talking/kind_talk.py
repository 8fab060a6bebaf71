"""What everybody knows about things of a kind, and in how many words one asks for it, read from ``kinds.txt``.

The grammar, line by line ("#" begins a comment)::

    ask eat                           a question that several sections answer
    ? What does it eat? / What would I feed {a}?
    kind cat, fox except kitten       things of these kinds, but not those of the names or kinds after "except"
    eat: It eats meat.                the answer to such a question
    ? Does it purr? / Can it purr?    ways to ask for something else, with " / " between them
    ! Yes, cats purr.                 and its answer
    name panda, koala                 things of these names, whose answers replace those of their kinds
    group animal                      kinds of one of ``GROUPS``, where their own sections do not answer
    plural scissors                   things of a kind whose names are plural; no other section tells of such things

The slots of questions and answers are {name} and {a}, which is the name with its article.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any

from llava.model.lexical.nouns import is_plural, with_article
from llava.scratch.talking.page_grammar import read_lines
from llava.scratch.talking.seen_records import Turns
from llava.scratch.talking.thing_groups import FOODS, GROUPS

MOST_WORDS = 18
# A question is asked in so many ways.
_FEWEST_WAYS, _MOST_WAYS = 2, 6
_MARKS = ("name", "kind", "group", "plural")
_SLOTS = {"{name}", "{a}"}
# Such a question cannot be answered with yes or no.
_OPEN = re.compile(r"(?i)(?:in |on |of |for |from |at |by |into |to |with )?(?:what|which|who|where|when|why|how)\b")
# Much of this is no countable thing: "a rice" and "a money" are not asked for.
_WITHOUT_ARTICLE = FOODS | set("plant grass money makeup soap snow ice fire paper armor hair".split())
_TURNS = (1, 1, 2, 2, 3)
# Of a kind that has its own sections, this share is asked for what these tell; and so many questions begin small.
_OWN_SHARE, _LOWERED_SHARE = 0.8, 0.15
# The file has twice as many answers with "No" as with "Yes": these are drawn more often.
_YES_WEIGHT = 2.0


@dataclass(frozen=True)
class Known:
    """Ways to ask for one thing, and the answer. ``line``: its number in the file."""

    asks: tuple[str, ...]
    says: str
    line: int


@dataclass(frozen=True)
class Section:
    """What is known of some things; ``mark`` tells whether ``of`` has names, kinds or groups. See the module."""

    mark: str
    of: frozenset[str]
    without: frozenset[str]
    line: int
    known: list[Known] = field(default_factory=list)

    def tells_of(self, name: str, kind: str) -> bool:
        """Whether it is about a thing of this name and kind."""
        if is_plural(name) != (self.mark == "plural") or {name, kind} & self.without:
            return False
        if self.mark == "group":
            return any(kind in GROUPS[group] for group in self.of)
        return (name if self.mark == "name" else kind) in self.of


def read_kinds(text: str, origin: str) -> list[Section]:
    """The sections of a grammar. Raises ValueError that names the line of ``origin`` which cannot be read."""
    shared: dict[str, tuple[str, ...]] = {}
    sections: list[Section] = []
    wanted: str | None = None  # the shared question whose ways follow
    asked: tuple[str, ...] | None = None  # the ways whose answer follows

    def read_line(line: str, number: int) -> None:
        nonlocal wanted, asked
        mark, _, rest = line.partition(" ")
        rest = rest.strip()
        if asked is not None and mark != "!":
            raise ValueError("the question before it has no answer")
        if mark == "?":
            ways = _read_ways(rest)
            if wanted is not None:
                shared[wanted], wanted = ways, None
            elif sections:
                asked = ways
            else:
                raise ValueError(f"'{line}' belongs to no section")
        elif wanted is not None:
            raise ValueError(f"'{wanted}' is not asked for")
        elif mark == "!":
            if asked is None:
                raise ValueError(f"'{line}' answers no question")
            sections[-1].known.append(_know(asked, rest, number))
            asked = None
        elif mark == "ask" and rest:
            if rest in shared:
                raise ValueError(f"'{rest}' was told before")
            wanted = rest
        elif mark in _MARKS:
            sections.append(_read_section(mark, rest, number))
        elif mark.endswith(":") and sections:
            if mark[:-1] not in shared:
                raise ValueError(f"there is no question '{mark[:-1]}'")
            sections[-1].known.append(_know(shared[mark[:-1]], rest, number))
        else:
            raise ValueError(f"'{line}' is none of ask, {', '.join(_MARKS)}, ?, ! and an answer")

    read_lines(text, origin, read_line)
    if asked is not None or wanted is not None:
        raise ValueError(f"{origin}:{len(text.splitlines())}: the last question is not finished.")
    _check_sections(sections, origin)
    return sections


def _read_section(mark: str, rest: str, line: int) -> Section:
    told, _, without = rest.partition(" except ")
    of, not_of = (frozenset(filter(None, map(str.strip, names.split(",")))) for names in (told, without))
    if not of:
        raise ValueError(f"'{mark}' has no name")
    if mark == "group" and (unknown := sorted(of - set(GROUPS))):
        raise ValueError(f"there is no group '{unknown[0]}'")
    return Section(mark, of, not_of, line)


def _read_ways(text: str) -> tuple[str, ...]:
    ways = tuple(filter(None, map(str.strip, text.split(" / "))))
    if not _FEWEST_WAYS <= len(ways) <= _MOST_WAYS or len(set(ways)) < len(ways):
        raise ValueError(f"'? {text}' needs {_FEWEST_WAYS} to {_MOST_WAYS} different ways to ask")
    if all("{a}" in way for way in ways):
        raise ValueError(f"'? {text}' needs a way to ask without {{a}}")
    for way in ways:
        _check_slots(way)
    return ways


def _know(asks: tuple[str, ...], says: str, line: int) -> Known:
    _check_slots(says)
    if not says.endswith(".") or not 0 < len(says.split()) <= MOST_WORDS:
        raise ValueError(f"'{says}' is no sentence of at most {MOST_WORDS} words")
    if says.startswith(("Yes", "No,")) and (way := next(filter(_OPEN.match, asks), None)):
        raise ValueError(f"'{way}' is not answered with yes or no")
    return Known(asks, says, line)


def _check_slots(text: str) -> None:
    if unknown := set(re.findall(r"\{[^{}]*\}|[{}]", text)) - _SLOTS:
        raise ValueError(f"'{text}' has {sorted(unknown)[0]}, which is no slot")


def _check_sections(sections: list[Section], origin: str) -> None:
    """Raises ValueError for a section that says nothing, and for two answers to one question about the same things."""
    told: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for section in sections:
        if not section.known:
            raise ValueError(f"{origin}:{section.line}: the section tells nothing.")
        for known in section.known:
            for name in sorted(section.of):
                for way in known.asks:
                    if way in told[section.mark, name]:
                        raise ValueError(f"{origin}:{known.line}: '{way}' was answered for '{name}' before.")
                    told[section.mark, name][way] = known.says


@lru_cache(maxsize=1)
def load_kinds() -> list[Section]:
    """What ``kinds.txt`` tells."""
    return read_kinds(resources.files("llava.scratch.talking").joinpath("kinds.txt").read_text("utf-8"), "kinds.txt")


@lru_cache(maxsize=4096)
def find_known(name: str, kind: str) -> tuple[tuple[Known, ...], tuple[Known, ...]]:
    """What is known of a thing by its name and kind, and what is known of its group alone."""
    found: dict[str, list[Known]] = {"own": [], "group": []}
    taken: set[str] = set()
    for marks in (("name",), ("kind", "plural"), ("group",)):  # what is nearer to the thing is truer of it
        new = [
            known
            for section in load_kinds()
            if section.mark in marks and section.tells_of(name, kind)
            for known in section.known
            if not taken & set(known.asks)
        ]
        taken.update(way for known in new for way in known.asks)
        found["group" if marks == ("group",) else "own"] += new
    return tuple(found["own"]), tuple(found["group"])


def talk_of_kind(rng: random.Random, thing: Mapping[str, Any]) -> Turns:
    """One to three turns about what everybody knows of such a thing; none where nothing is known."""
    own, general = find_known(thing["name"], thing["kind"])
    slots = {"name": thing["name"], "a": with_article(thing["name"])}
    left, turns = [list(own), list(general)], []
    for _ in range(rng.choice(_TURNS)):
        pool = left[0] if left[0] and (not left[1] or rng.random() < _OWN_SHARE) else left[1]
        if not pool:
            break
        weights = [_YES_WEIGHT if known.says.startswith("Yes") else 1.0 for known in pool]
        known = pool.pop(rng.choices(range(len(pool)), weights)[0])
        asks = [way for way in known.asks if thing["kind"] not in _WITHOUT_ARTICLE or "{a}" not in way]
        question = rng.choice(asks).format(**slots)
        if rng.random() < _LOWERED_SHARE:
            question = question[:1].lower() + question[1:]
        turns.append((question, known.says.format(**slots)))
    return turns
