"""Kinds of everyday things, so that "a bird" is a right kind for a pelican. No torch."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources


@lru_cache(maxsize=1)
def _read_table() -> dict[str, tuple[str, ...]]:
    """The kinds of each name, nearest first; the file has a line for each kind."""
    text = resources.files("llava.eval").joinpath("everyday_kinds.txt").read_text(encoding="utf-8")
    kinds: dict[str, list[str]] = {}
    for line in text.splitlines():
        kind, colon, names = line.partition(":")
        if not colon or line.startswith("#"):
            continue
        for name in names.split():
            kinds.setdefault(name.replace("_", " "), []).append(kind.strip().replace("_", " "))
    return {name: tuple(found) for name, found in kinds.items()}


@lru_cache(maxsize=1)
def _last_words() -> frozenset[str]:
    table = _read_table()
    return frozenset(name.split()[-1] for name in (*table, *(kind for kinds in table.values() for kind in kinds)))


def is_everyday(word: str) -> bool:
    """Whether a lower-case word in the singular is the last word of a thing or a kind that the table knows."""
    return word in _last_words()


def find_kinds(name: str) -> tuple[str, ...]:
    """What a thing is a kind of, nearest first, such as ("bird", "animal") for "pelican"; empty if it is not known.

    A name of several words is known by its last ones, too: "office chair" as a chair, which then is a kind of it.
    """
    table = _read_table()
    words = name.lower().split()
    found: dict[str, None] = {}
    for start in range(len(words)):
        tail = " ".join(words[start:])
        if tail not in table and not any(tail in kinds for kinds in table.values()):
            continue
        if start:
            found[tail] = None
        pending = [tail]
        while pending:
            for kind in table.get(pending.pop(0), ()):
                if kind not in found and kind != name.lower():
                    found[kind] = None
                    pending.append(kind)
        break
    return tuple(found)
