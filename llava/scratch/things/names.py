"""Everyday names of things, from class names, titles of clip art and names of emoji."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from llava.scratch.things.kinds import Kinds
from llava.yaml_files import parse_mapping

AUTHOR_OF_FILE = re.compile(r"(_\w+)?(_archi\w*|_frances\w*|_nicu\w*|_\w*_\w{0,2})?_?\d*$")
"""What follows the name of the thing: "cavallo_architetto_franc_01"."""


class Name(NamedTuple):
    """What a thing is called."""

    name: str
    """A noun phrase without an article: "ice cream cone"."""
    kind: str
    """A wider everyday word: "dessert"."""


@cache
def vocabulary() -> dict[str, Any]:
    """The tables of names.yaml."""
    text = resources.files("llava.scratch.things").joinpath("names.yaml").read_text("utf-8")
    return parse_mapping(text, "names.yaml")


def name_class(index: int, label: str, synset: int, kinds: Kinds) -> Name:
    """The name of an ImageNet class, whose kind follows from its own synset; the kind may be the name itself."""
    name = vocabulary()["classes"].get(index, label)
    kind = vocabulary()["kinds"].get(name) or kinds.of_synset(synset) or kinds.of_noun(name) or name
    return Name(name, kind)


def name_title(title: str, file_stem: str, kinds: Kinds) -> Name | None:
    """The name in the title of a piece of clip art, or in its file's name where the title is none."""
    lower = title.lower()
    is_title = lower and not any(word in lower for word in vocabulary()["untitled"])
    if is_title and (found := name_phrase(title, kinds)):
        return found
    return name_phrase(AUTHOR_OF_FILE.sub("", file_stem) or file_stem, kinds)


def name_phrase(phrase: str, kinds: Kinds) -> Name | None:
    """The noun phrase at the head of a longer one, if it names a thing of some kind and may be used."""
    words = clean_words(phrase)
    if not words or any(re.search(rf"\b{re.escape(banned)}\b", " ".join(words)) for banned in vocabulary()["banned"]):
        return None
    known = vocabulary()["kinds"]
    for start in range(max(len(words) - 4, 0), len(words)):
        name = " ".join(words[start:])
        if name in known:
            return Name(name, known[name])
        if name in vocabulary()["junk"]:
            return None
        if kinds.wordnet.find(name) and (kind := kinds.of_noun(name)) not in (None, "person"):
            return Name(name, str(kind))
    return None


def clean_words(phrase: str) -> list[str]:
    """The words of a title that can be part of a name, in English and lower case, up to the first preposition."""
    tables = vocabulary()
    text = re.sub(r"\([^)]*\)|#?\d+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", phrase))
    text = re.sub(r"[_\-/.!?:;]+", " ", text).lower()
    text = re.sub(r"\s+", " ", text).strip()
    for foreign, english in tables["translations"].items():
        text = re.sub(rf"\b{re.escape(foreign)}\b", english, text)
    words: list[str] = []
    for word in text.replace(",", " , ").split():
        if word in tables["cuts"] and words:
            break
        if word not in tables["dropped"] and word not in tables["cuts"] and len(word) > 1:
            words.append(word)
    return words
