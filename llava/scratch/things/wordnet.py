"""WordNet's nouns and what they are kinds of, read from the files of Debian's package wordnet-base."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from llava.errors import UsageError

EXCEPTIONS = {"s": "", "es": "", "ies": "y", "ses": "s", "ves": "f", "men": "man"}
"""Endings of plurals and what the singular has in their place; tried in this order."""


class WordNet:
    """Senses of nouns as offsets into data.noun, the most frequent first, and their hypernyms.

    The offset of a noun is also the number in an ImageNet class id (n01440764).
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "data.noun").is_file():
            raise UsageError(
                f"{folder} has no data.noun. WordNet is needed at build time only: "
                "apt-get download wordnet-base && dpkg -x wordnet-base_*.deb DIR, then give DIR/usr/share/wordnet"
            )
        self.folder = folder

    @cached_property
    def senses(self) -> dict[str, list[int]]:
        """Offsets of each noun's senses, by the noun in lower case with underscores."""
        senses = {}
        for fields in self._records("index.noun"):
            senses[fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
        return senses

    @cached_property
    def hypernyms(self) -> dict[int, list[int]]:
        """Offsets of what each synset is a kind or an instance of."""
        hypernyms = {}
        for fields in self._records("data.noun"):
            pointers = 4 + 2 * int(fields[3], 16)
            quads = [fields[i : i + 4] for i in range(pointers + 1, pointers + 1 + 4 * int(fields[pointers]), 4)]
            hypernyms[int(fields[0])] = [int(quad[1]) for quad in quads if quad[0] in ("@", "@i")]
        return hypernyms

    def find(self, phrase: str) -> list[int]:
        """Offsets of the senses of a noun phrase, also of one in the plural; none where WordNet lacks it."""
        key = phrase.lower().replace(" ", "_")
        if key in self.senses:
            return self.senses[key]
        for ending, singular in EXCEPTIONS.items():
            if key.endswith(ending) and key[: -len(ending)] + singular in self.senses:
                return self.senses[key[: -len(ending)] + singular]
        return []

    def ancestors(self, offset: int) -> Iterator[int]:
        """The synset and all that it is a kind of, nearest first."""
        queue, seen = deque([offset]), {offset}
        while queue:
            yield (nearest := queue.popleft())
            for parent in self.hypernyms.get(nearest, []):
                if parent not in seen:
                    seen.add(parent)
                    queue.append(parent)

    def _records(self, name: str) -> Iterator[list[str]]:
        with (self.folder / name).open(encoding="latin-1") as lines:
            for line in lines:
                if not line.startswith(" "):  # the licence
                    yield line.split(" | ")[0].split()
