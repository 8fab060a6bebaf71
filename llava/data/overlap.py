"""What training data shares with a benchmark: images, also re-encoded, resized or cropped ones, and questions.

It answers whether a score may be called zero-shot. Images are hashed once, into a file that later runs read; the
benchmark's hashes are held in memory, a block at a time, and the training images stream past them.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llava.data.crop_search import Candidate, CropSearch
from llava.data.fingerprint_store import FingerprintStore, fingerprint_all, make_key, map_in_processes
from llava.data.fingerprints import ImageSource
from llava.data.near_images import Pair, verify
from llava.data.readers import read_records
from llava.data.records import RecordSource
from llava.errors import BadImage, UsageError

IMAGE_SUFFIXES = tuple(
    ".jpg .jpeg .jfif .jpe .png .apng .webp .gif .bmp .tif .tiff .avif .heic .heif .jp2 .j2k "
    ".tga .ppm .pgm .pnm .pcx .dds .qoi".split()
)
# The benchmark's images whose hashes are in memory at once: 25 KB each, twice that while it is built.
_BLOCK = 8192
_STREAM = 4096
# Candidates of a training image whose pixels are compared, the most similar first; how many were left out is counted.
_MOST_COMPARED = 50
# Fewer than these are not worth the start of processes.
_FEW_IMAGES, _FEW_PAIRS = 1000, 200
# White space, punctuation and the image slot are no part of a question.
_NO_WORDS = re.compile(r"<image>|[^\w]+")

Report = Callable[[str, int, int], None]


@dataclass
class Corpus:
    """The images and questions of one side.

    Attributes:
        images: by name: where each is, and the key under which its fingerprint is stored.
        sources: by name of an image: the sources whose records show it.
        questions: normalised: source of the records that ask it, with the images that they ask it about.
        broken: messages by name of an image.
    """

    images: dict[str, tuple[bytes, ImageSource]] = field(default_factory=dict)
    sources: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    questions: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    num_samples: int = 0

    def images_of(self, source: str) -> set[str]:
        """The names of a source's images that can be read."""
        return {name for name, sources in self.sources.items() if source in sources and name not in self.broken}

    def all_sources(self) -> list[str]:
        """The names of all sources, in the order of their first record."""
        asked = (source for by_source in self.questions.values() for source in by_source)
        shown = (source for sources in self.sources.values() for source in sorted(sources))
        return list(dict.fromkeys([*shown, *asked]))


@dataclass(frozen=True)
class ImagePair:
    """An image of the training data and one of the benchmark that show the same."""

    train: str
    eval: str
    pair: Pair


@dataclass
class Overlap:
    """What two corpora share.

    Attributes:
        pairs: of images.
        questions: those that both ask, normalised.
        num_flat: images of the benchmark without any structure, such as blank pages: only equal files are found.
        num_compared: candidates whose pixels were compared; num_left_out: those beyond fifty of one image.
        unread: messages on images that were hashed and could not be read later.
    """

    train: Corpus
    eval: Corpus
    pairs: list[ImagePair] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    num_flat: int = 0
    num_compared: int = 0
    num_left_out: int = 0
    unread: list[str] = field(default_factory=list)

    @property
    def num_eval(self) -> int:
        """The benchmark's images that can be read."""
        return len(self.eval.images) - len(self.eval.broken)

    @property
    def num_shared(self) -> int:
        """Those of them that are in the training data."""
        return len({pair.eval for pair in self.pairs})

    @property
    def share(self) -> float:
        """The share that they are, 0 to 1."""
        return self.num_shared / self.num_eval if self.num_eval else 0.0

    def questions_on_shared_images(self) -> set[str]:
        """The shared questions that both ask about an image that they share."""
        partners: dict[str, set[str]] = defaultdict(set)
        for pair in self.pairs:
            partners[pair.train].add(pair.eval)
        found = set()
        for question in self.questions:
            asked, asked_too = (set().union(*corpus.questions[question].values()) for corpus in (self.train, self.eval))
            if any(partners.get(name, set()) & asked_too for name in asked):
                found.add(question)
        return found


def normalise_question(text: str) -> str:
    """A question without case, punctuation and image slots, its words separated by one blank.

    Only its first line with words counts: what follows are choices, OCR tokens, or how to answer.
    """
    lines = (_NO_WORDS.sub(" ", unicodedata.normalize("NFKC", line)).casefold().split() for line in text.split("\n"))
    return next((" ".join(words) for words in lines if words), "")


def gather(paths: Sequence[str], image_folder: str) -> Corpus:
    """The images and questions of data files and folders of images.

    Raises:
        UsageError: a path does not exist, holds no image, or is no data file that can be read.
    """
    corpus = Corpus()
    for path in paths:
        if os.path.isdir(path) and any(_walk_images(Path(path))):
            _gather_folder(corpus, Path(path))
        elif _is_question_file(path):
            _gather_questions(corpus, Path(path), Path(image_folder))
        else:
            _gather_records(corpus, read_records(path), path, Path(image_folder))
    if not corpus.images and not corpus.questions:
        raise UsageError(f"{', '.join(paths)}: there are no images and no questions.")
    return corpus


def _walk_images(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):  # symbolic links to folders are not followed: they may form a loop
        folders.sort()
        yield from (Path(where, name) for name in sorted(files) if name.lower().endswith(IMAGE_SUFFIXES))


def _gather_folder(corpus: Corpus, folder: Path) -> None:
    for path in _walk_images(folder):
        _add_file(corpus, str(path), path, folder.name or str(folder))
        corpus.num_samples += 1


def _is_question_file(path: str) -> bool:
    """Whether it has LLaVA's format of a benchmark's questions: lines with ``text`` and without conversations."""
    try:
        with open(path, "rb") as file:
            row = json.loads(file.readline(1_000_000)) if path.endswith(".jsonl") else None
    except (OSError, ValueError, RecursionError):
        return False  # the reader of records says what is wrong
    return isinstance(row, dict) and isinstance(row.get("text"), str) and "conversations" not in row


def _gather_questions(corpus: Corpus, path: Path, folder: Path) -> None:
    """Adds a file such as llava_textvqa_val_v051_ocr.jsonl.

    Source: haotian-liu/LLaVA@c121f04 llava/eval/model_vqa_loader.py (``question_id``, ``image``, ``text``).
    """
    with path.open("rb") as file:
        for i, line in enumerate(file):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                text, image = row["text"], row.get("image")
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
                raise UsageError(f"Line {i + 1} of '{path}' is no question with a 'text'. Correct it.") from error
            names = [] if image is None else image if isinstance(image, list) else [image]
            if not all(isinstance(name, str) for name in names):
                raise UsageError(f"Line {i + 1} of '{path}' has an 'image' that is not the name of a file. Correct it.")
            corpus.num_samples += 1
            for name in names:
                _add_named(corpus, name, folder, path.stem)
            _add_question(corpus, str(text), path.stem, names)


def _gather_records(corpus: Corpus, records: RecordSource, path: str, folder: Path) -> None:
    stamp = _stamp(Path(path))
    for index in range(len(records)):
        record = records.record(index)
        corpus.num_samples += 1
        source = Path(record.source).stem if record.source == path else record.source
        names = []
        for image in record.images:
            name = image if isinstance(image, str) else f"{path}: {image.name}"
            names.append(name)
            if isinstance(image, str):
                _add_named(corpus, name, folder, source)
                continue
            corpus.images.setdefault(name, (make_key(f"{os.path.abspath(path)}\0{name}\0{stamp}"), image))
            corpus.sources[name].add(source)
        for speaker, text in record.turns:
            if speaker == "human":
                _add_question(corpus, text, source, names)


def _add_question(corpus: Corpus, text: str, source: str, names: Sequence[str]) -> None:
    question = normalise_question(text)
    if question:
        corpus.questions.setdefault(question, {}).setdefault(source, set()).update(names)


def _add_named(corpus: Corpus, name: str, folder: Path, source: str) -> None:
    """Adds an image of a record, or that it lies outside the image folder."""
    if name in corpus.images:
        corpus.sources[name].add(source)
        return
    _add_file(corpus, name, folder / name, source)
    if not is_inside(name, folder):
        corpus.broken[name] = f"The image '{name}' lies outside the image folder {folder}."


def is_inside(name: str, folder: Path) -> bool:
    """Whether an image's name leads to a place in the folder."""
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # U+0000, or symbolic links in a loop
        return False


def _add_file(corpus: Corpus, name: str, path: Path, source: str) -> None:
    corpus.images[name] = make_key(f"{os.path.abspath(path)}\0{_stamp(path)}"), path
    corpus.sources[name].add(source)


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def find_overlap(
    train: Corpus, benchmark: Corpus, store: FingerprintStore, num_workers: int, report: Report
) -> Overlap:
    """What ``train`` and ``benchmark`` share. Images that cannot be read are entered in ``broken``.

    Args:
        report: is told what is done, how much of it, and of how much.
    """
    for corpus in (benchmark, train):
        _hash(corpus, store, num_workers, report)
    result = Overlap(train, benchmark)
    result.questions = sorted(train.questions.keys() & benchmark.questions.keys())
    names = [sorted(corpus.images.keys() - corpus.broken.keys()) for corpus in (train, benchmark)]
    rows = [
        np.array([store.row(corpus.images[name][0]) for name in part], np.int64)
        for corpus, part in zip((train, benchmark), names, strict=True)
    ]
    table = store.open()
    found = _find_equal_files(table["digest"][rows[0]], table["digest"][rows[1]])
    equal = {(pair.first, pair.second) for pair in found}
    candidates = (
        c for c in _find_candidates(table, rows[0], rows[1], result, report) if (c.first, c.second) not in equal
    )
    tasks = ((train.images[names[0][c.first]][1], benchmark.images[names[1][c.second]][1], c) for c in candidates)
    few = list(itertools.islice(tasks, _FEW_PAIRS))
    num_workers = 1 if len(few) < _FEW_PAIRS else num_workers
    for pair in map_in_processes(_verify, itertools.chain(few, tasks), num_workers):
        result.num_compared += 1
        if isinstance(pair, Pair):
            found.append(pair)
        elif pair is not None:
            result.unread.append(pair)
        report("pairs compared", result.num_compared, 0)
    result.pairs = [ImagePair(names[0][pair.first], names[1][pair.second], pair) for pair in sorted(found)]
    return result


def _hash(corpus: Corpus, store: FingerprintStore, num_workers: int, report: Report) -> None:
    todo = {key: source for name, (key, source) in corpus.images.items() if name not in corpus.broken}
    images = [(key, source) for key, source in todo.items() if key not in store]
    messages: dict[bytes, str] = {}
    num_done = 0
    for num, broken in fingerprint_all(images, store, num_workers if len(images) >= _FEW_IMAGES else 1):
        num_done += num
        messages.update(broken)
        report("images hashed", num_done, len(images))
    if messages:
        corpus.broken.update((name, messages[key]) for name, (key, _) in corpus.images.items() if key in messages)


def _find_equal_files(train: Any, benchmark: Any) -> list[Pair]:
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for i, digest in enumerate(benchmark):
        by_digest[digest.tobytes()].append(i)
    return [Pair(i, j, "file", 1.0) for i, digest in enumerate(train) for j in by_digest.get(digest.tobytes(), ())]


def _find_candidates(table: Any, train: Any, benchmark: Any, result: Overlap, report: Report) -> Iterator[Candidate]:
    """Candidates, as numbers in ``train`` and ``benchmark``, which are rows of ``table``."""
    num_blocks = -(-len(benchmark) // _BLOCK)
    for block in range(num_blocks):
        start = block * _BLOCK
        search = CropSearch(table["thumbnail"][benchmark[start : start + _BLOCK]])
        result.num_flat += search.num_flat
        for first in range(0, len(train), _STREAM):
            by_image: dict[int, list[Candidate]] = defaultdict(list)
            for candidate in search.find(table["thumbnail"][train[first : first + _STREAM]], first):
                by_image[candidate.first].append(candidate._replace(second=start + candidate.second))
            for found in by_image.values():
                found.sort(key=lambda candidate: -candidate.cosine)
                result.num_left_out += max(0, len(found) - _MOST_COMPARED)
                yield from found[:_MOST_COMPARED]
            done = block * len(train) + min(first + _STREAM, len(train))
            report("images searched", done, num_blocks * len(train))


def _verify(task: tuple[ImageSource, ImageSource, Candidate]) -> Pair | str | None:
    """The pair, None if the images differ, or a message if one can no longer be read."""
    try:
        return verify(*task)
    except BadImage as error:
        return str(error)
