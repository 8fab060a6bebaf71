"""What a converter is: a function from the files of one dataset to rows, and the facts that ``llava data list`` prints.

A converter reads its ``Source``, yields rows that ``make_row`` makes, and calls ``Options.leave_out`` for whatever it
cannot use: nothing is dropped in silence. It opens no image unless it needs a size, and writes nothing itself.
No torch, no model.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.text import fit_line
from llava.yaml_files import name_nearest

Row = dict[str, Any]
"""``id``, ``image`` (absent, a name, or a list of names), ``conversations`` and ``data_source``."""

_MOST_EXAMPLES = 3


@dataclass
class LeftOut:
    """What was left out, by reason, with the first few examples of each.

    Attributes:
        counts: by reason, a clause such as "has no answer".
        examples: the first things left out for that reason, such as "question 12".
        listener: called with each (reason, thing).
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    listener: Callable[[str, str], None] | None = None

    def add(self, reason: str, thing: str) -> None:
        """Counts ``thing`` as left out for ``reason``."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _MOST_EXAMPLES:
            examples.append(fit_line(thing, 80))
        if self.listener is not None:
            self.listener(reason, thing)


@dataclass(frozen=True)
class Options:
    """What a user chose.

    Attributes:
        split: one of the converter's splits.
        format: one of the converter's formats; "" for a converter that has one only.
        prompt: replaces the dataset's answer-format sentence if it is not None; "" leaves it out.
        seed: of everything that is chosen at random.
        images: the folder that image names are relative to, for converters that need sizes of images.
        save_image: stores the bytes of an image that a dataset's file holds, under a name relative to the image
            folder, unless that is there already.
        left_out: counts what is not converted.
    """

    split: str = "train"
    format: str = ""
    prompt: str | None = None
    seed: int = 0
    images: Path | None = None
    save_image: Callable[[str, bytes], None] | None = None
    left_out: LeftOut = field(default_factory=LeftOut)

    def leave_out(self, reason: str, thing: str) -> None:
        """Counts something as left out: ``reason`` is a clause ("has no answer"), ``thing`` names what it is."""
        self.left_out.add(reason, thing)

    def ask(self, question: str, sentence: str) -> str:
        """The question with the answer-format sentence, or what replaces it, on a line of its own."""
        sentence = sentence if self.prompt is None else self.prompt
        return "\n".join(part for part in (question, sentence) if part)

    def choose_prompt(self, sentence: str) -> str:
        """The prompt of a set without questions, such as captions: ``sentence``, or what replaces it."""
        return sentence if self.prompt is None else self.prompt

    def draw(self, key: object) -> random.Random:
        """A generator for the row ``key``: independent of all other rows, and the same on every machine."""
        return random.Random(f"{self.seed}:{key}")


@dataclass(frozen=True)
class Source:
    """The files of a dataset, found in a folder, in the order in which the table names them."""

    folder: Path
    entries: tuple[str, ...]
    found: tuple[tuple[Path, ...], ...]
    url: str

    def file(self, index: int = 0) -> Path:
        """The file, or folder, of the table's entry number ``index``. Raises UsageError for an optional one's lack."""
        return self.files(index)[0]

    def files(self, index: int = 0) -> tuple[Path, ...]:
        """All files of an entry that is a pattern, sorted by name. Raises UsageError for an optional one's lack."""
        if not self.found[index]:
            missing = say_files(self.entries[index : index + 1])
            raise UsageError(f"'{self.folder}' lacks {missing}, which this format needs. Get it from {self.url}.")
        return self.found[index]


@dataclass(frozen=True)
class Converter:
    """A row of the table.

    Attributes:
        name: what ``llava data convert`` calls it.
        title: what people call the dataset.
        convert: the function.
        files: by split, the files that the function needs, as the dataset's authors name them, relative to SRC or
            directly in it. "a.json | b.json" are names of the same file, "part-*.parquet" is a pattern,
            "annotations/" a folder.
        licence: of the annotations, as their authors state it; then of the images where that differs.
        url: where the files come from.
        images: the folder of the images as LLaVA's mixtures name it, such as "coco/train2017"; "" if ``image`` is
            relative to the dataset's own folder, or if there is none.
        num_published: rows, or what ``counted`` says, that the authors or LLaVA's mixture have; None if unknown.
        counted: what ``num_published`` counts, with its source.
        formats: by name, what ``--format`` makes; the first is the default.
        optional: numbers of the entries of ``files`` that only some formats need.
        facts: where the schema was looked up.
    """

    name: str
    title: str
    convert: Callable[[Source, Options], Iterator[Row]]
    files: Mapping[str, tuple[str, ...]]
    licence: str
    url: str
    images: str
    num_published: int | None
    counted: str
    formats: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[int, ...] = ()
    facts: str = ""

    def find_source(self, src: Path, split: str) -> Source:
        """The files of ``split`` in the folder ``src``; ``src`` may be the file itself if only one is needed.

        Raises:
            UsageError: there is no such split, or files are missing, which are all named, with where they come from.
        """
        if split not in self.files:
            raise UsageError(f"{self.title} has no split '{split}'.{name_nearest(split, self.files)}")
        entries = self.files[split]
        if src.is_file() and len(entries) == 1:
            return Source(src.parent, entries, ((src,),), self.url)
        if not src.is_dir():
            fault = "is one file" if src.exists() else "does not exist"
            raise UsageError(f"'{src}' {fault}. It has to be the folder with {say_files(entries)}.")
        found = tuple(_find(src, entry) for entry in entries)
        missing = [entries[i] for i, paths in enumerate(found) if not paths and i not in self.optional]
        if missing:
            raise UsageError(
                f"'{src}' lacks {say_files(missing)}, which {self.title}, split {split}, is converted from. "
                f"They come from {self.url}."
            )
        return Source(src, entries, found, self.url)

    def check_format(self, format: str | None) -> str:
        """The format that ``--format`` names, or the default. Raises UsageError for an unknown one."""
        if format is None:
            return next(iter(self.formats), "")
        if format not in self.formats:
            known = name_nearest(format, self.formats) if self.formats else " It has one only: leave the flag out."
            raise UsageError(f"{self.title} has no format '{format}'.{known}")
        return format


def say_files(entries: Sequence[str]) -> str:
    """Names of files as a message lists them."""
    return ", ".join(f"'{entry.replace(' | ', chr(39) + ' or ' + chr(39))}'" for entry in entries)


def _find(folder: Path, entry: str) -> tuple[Path, ...]:
    """What an entry of ``Converter.files`` names: relative to ``folder``, or else directly in it."""
    for name in entry.split(" | "):
        for candidate in dict.fromkeys((name, name.rstrip("/").rpartition("/")[2])):
            if "*" in candidate:
                parent, _, pattern = candidate.rpartition("/")
                place = folder / parent
                names = sorted(path.name for path in place.iterdir()) if place.is_dir() else []
                paths = tuple(place / name for name in names if fnmatch.fnmatchcase(name, pattern))
            else:
                path = folder / candidate
                paths = (path,) if (path.is_dir() if name.endswith("/") else path.is_file()) else ()
            if paths:
                return paths
    return ()


def make_row(id: object, image: str | Sequence[str] | None, turns: Sequence[tuple[str, str]], data_source: str) -> Row:
    """A row of LLaVA's data format. ``<image>`` is put in front of the first question, once per image.

    Args:
        turns: (question, answer); a question without text is the image alone.
        data_source: the dataset, such as "vqav2".
    """
    num_images = 0 if image is None else 1 if isinstance(image, str) else len(image)
    said = []
    for i, (question, answer) in enumerate(turns):
        if i == 0 and num_images:
            question = "<image>\n" * num_images + question
            question = question if turns[0][0] else question.rstrip("\n")
        said += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    row: Row = {"id": str(id)}
    if image is not None:
        row["image"] = image if isinstance(image, str) else list(image)
    return {**row, "conversations": said, "data_source": data_source}
