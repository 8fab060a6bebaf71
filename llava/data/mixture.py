"""A mixture: the rows of several sources as one, each labelled with its source, in an order that never changes.

It is opened without reading the sources' files (see ``row_index``), so it is as large as one likes. Training takes it
as it takes any data file, shuffles it, and resumes it; ``stream`` does the same for other programs.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llava.data.convert.table import CONVERTERS
from llava.data.data_paths import list_data_files
from llava.data.mixture_file import MixtureFile, Source, read_mixture
from llava.data.records import Record
from llava.data.rows import ChosenRows, JoinedRows, Rows, RowSizes
from llava.errors import UsageError
from llava.text import fit_line, write_line

_MOST_NAMED = 20


class SourceRows(Rows):
    """The rows of a source, with its name as ``data_source``, its folder before image names, and its prompt.

    Args:
        rows: those that are taken.
    """

    def __init__(self, source: Source, rows: Rows) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Any:
        """Row number ``index``, as the mixture has it."""
        row = self.rows.row(index)
        if not isinstance(row, dict):
            return row
        row = {**row, "data_source": self.source.name}
        if self.source.images and row.get("image") is not None:
            row["image"] = _put_in_folder(row["image"], self.source.images)
        if self.source.prompt:
            row["conversations"] = _add_prompt(row.get("conversations"), self.source.prompt)
        return row

    def locate(self, index: int) -> tuple[int, str]:
        """The row's number in its own file, and that file."""
        return self.rows.locate(index)

    def sizes(self) -> RowSizes:
        """Words and images of all rows."""
        sizes = self.rows.sizes()
        return RowSizes(sizes.num_words + len(self.source.prompt.split()), sizes.num_images)

    def digest(self) -> str:
        """That of the rows; a change of name or prompt changes it, too."""
        return f"{self.rows.digest()}:{self.source.name}:{self.source.images}:{self.source.prompt}"


@dataclass(frozen=True)
class SourceSizes:
    """What a source gives to a mixture: samples, words and images in an epoch, and its share of the samples."""

    name: str
    num_samples: int
    num_words: int
    num_images: int
    share: float


class Mixture(JoinedRows):
    """The rows of a mixture's sources, one source after the other."""

    def __init__(self, file: MixtureFile, parts: Sequence[SourceRows]) -> None:
        super().__init__(parts)
        self.file = file

    @property
    def num_failures(self) -> int:
        """How many rows may fail before a run stops."""
        return self.file.count_failures(len(self))

    def list_sizes(self) -> list[SourceSizes]:
        """What each source gives, in order."""
        found = []
        for part in self.parts:
            assert isinstance(part, SourceRows)
            words, images = part.sizes()
            found.append(
                SourceSizes(part.source.name, len(part), int(words.sum()), int(images.sum()), len(part) / len(self))
            )
        return found

    def order(self, epoch: int = 0) -> np.ndarray:
        """The numbers of all rows in an order that follows from seed and epoch, int64 [N]."""
        return np.random.default_rng((self.file.seed, epoch)).permutation(len(self))

    def stream(
        self, rank: int = 0, world_size: int = 1, *, start: int = 0, epoch: int = 0
    ) -> Iterator[tuple[int, Record]]:
        """(place, record) of an epoch, for one of several processes; together they read every row once.

        Args:
            start: the place to go on from: one more than the last place that this process has had.

        Raises:
            UsageError: more rows failed than the mixture's ``failures`` allow; they are named. Others are named on
                stderr and left out.
        """
        if not 0 <= rank < world_size:
            raise UsageError(f"There is no process {rank} of {world_size}.")
        failed: list[str] = []
        order = self.order(epoch)
        first = start + (rank - start) % world_size
        for place in range(first, len(order), world_size):
            try:
                record = self.record(int(order[place]))
            except UsageError as error:
                failed.append(str(error))
                self._note(failed)
                continue
            yield place, record

    def _note(self, failed: list[str]) -> None:
        if len(failed) > self.num_failures:
            named = "".join(f"\n{fit_line(each, 300)}" for each in failed[-_MOST_NAMED:])
            few = f"its 'failures' allow {self.num_failures:,}"
            raise UsageError(f"{len(failed):,} rows of the mixture '{self.file.name}' failed, and {few}:{named}")
        write_line(f"llava: {fit_line(failed[-1], 1000)} It is left out.")


def open_mixture(path: str | Path, root: str | Path | None = None, wanted: Sequence[str] = ()) -> Mixture:
    """The rows of a mixture.

    Args:
        root, wanted: see ``read_mixture``.

    Raises:
        UsageError: the mixture is not valid, or files of its sources are missing: all of them are named, with what
            makes them.
    """
    from llava.data.readers import read_records  # which opens mixtures, too

    file, this = read_mixture(path, root, wanted), Path(os.path.realpath(path))
    check_files(file)
    outer = _open_now.get()
    if this in outer:
        raise UsageError(f"The mixture '{path}' contains itself, by way of the 'data' of its sources.")
    token, parts = _open_now.set((*outer, this)), []
    try:
        for source in file.sources:
            rows = read_records(_place_files(file, source), file.seed)
            parts.append(SourceRows(source, choose_rows(rows, source, file.seed)))
    finally:
        _open_now.reset(token)
    return Mixture(file, parts)


# The mixtures that are being opened: one may be a source of another, but not of itself.
_open_now: ContextVar[tuple[Path, ...]] = ContextVar("_open_now", default=())


def choose_rows(rows: Rows, source: Source, seed: int) -> Rows:
    """Those rows of a source that it takes, as often as its weight says."""
    rng = random.Random(f"{seed}:{source.name}")
    taken = np.asarray(source.take.choose(len(rows), rng), dtype=np.int64)
    full, part = divmod(source.weight, 1)
    again = rng.sample(range(len(taken)), round(part * len(taken)))
    chosen = np.concatenate([np.tile(taken, int(full)), taken[np.sort(np.asarray(again, dtype=np.int64))]])
    if not len(chosen):
        raise UsageError(
            f"The source '{source.name}' gives no row: of {len(taken):,} it takes {source.weight:g}. Raise its weight."
        )
    is_all = source.take.name == "all" and source.weight == 1
    return rows if is_all else ChosenRows(rows, chosen)  # type: ignore[arg-type]


def check_files(file: MixtureFile) -> None:
    """Raises UsageError if a source's file is missing; all are named, with what makes them."""
    missing = []
    for source in file.sources:
        for path in _place_files(file, source):
            try:
                found = list_data_files(path)
            except UsageError:
                found = [path]
            if "://" not in path and not any(Path(each).exists() for each in found):
                missing.append(f"\n{source.name}: '{path}'{_say_origin(source)}")
    if missing:
        raise UsageError(
            f"The mixture '{file.name}' lacks {len(missing)} of its files, relative to '{file.root}' (another root: "
            f"--root of llava data mix, or 'root' in a file that extends it):{''.join(missing)}"
        )


def _say_origin(source: Source) -> str:
    converter = CONVERTERS.get(source.convert)
    if converter is None:
        return f". {source.about}" if source.about else ""
    return f", from `llava data convert {source.convert} SRC DST`; SRC is from {converter.url}"


def _place_files(file: MixtureFile, source: Source) -> list[str]:
    files = [source.data] if isinstance(source.data, str) else list(source.data)
    return [each if "://" in each else str(file.root / each) for each in files]


def _put_in_folder(image: Any, folder: str) -> Any:
    if isinstance(image, str):
        return f"{folder.rstrip('/')}/{image}"
    return [_put_in_folder(each, folder) for each in image] if isinstance(image, (list, tuple)) else image


def _add_prompt(turns: Any, prompt: str) -> Any:
    """The turns with a line added to the first question."""
    if not isinstance(turns, list):
        return turns
    for i, turn in enumerate(turns):
        key = "value" if isinstance(turn, dict) and "from" in turn else "content"
        if isinstance(turn, dict) and turn.get("from", turn.get("role")) in ("human", "user"):
            return [*turns[:i], {**turn, key: f"{turn.get(key)}\n{prompt}"}, *turns[i + 1 :]]
    return turns
