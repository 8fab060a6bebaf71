"""The split of a Hugging Face data set: parquet files, one or several, whose rows hold their images. Loads no torch.

Texts are read without the images, which are read one by one when they are needed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.errors import UsageError

if TYPE_CHECKING:
    from llava.data.parquet_rows import ParquetImage

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


class ShardImage:
    """An image in a column of a shard; a ``StoredImage``. Equal to every other one of the same bytes."""

    def __init__(self, source: ParquetImage) -> None:
        self._source, self._digest = source, b""

    @property
    def name(self) -> str:
        """Its file name, or else its place in the shard."""
        return self._source.name

    def read(self) -> bytes:
        """Its bytes, undecoded. Raises BadImage where they are missing or the file is damaged."""
        data = self._source.read()
        self._digest = hashlib.blake2b(data, digest_size=16).digest()
        return data

    @property
    def digest(self) -> bytes:
        """A digest of its bytes. Raises BadImage."""
        return self._digest or (self.read() and self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardImage) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@dataclass(frozen=True)
class ShardRow:
    """A row of a split: its number over all shards, its values without images, and where it is, for messages."""

    number: int
    values: dict[str, Any]
    where: str
    images: tuple[ShardImage, ...] = ()

    def pick(self, key: str, kind: Any) -> Any:
        """The value of a column. Raises UsageError if it is of another kind."""
        value = self.values[key]
        if isinstance(value, bool) or not isinstance(value, kind):
            raise UsageError(f"{self.where} has {str(value)[:200]!r} as '{key}'.")
        return value

    def pick_texts(self, key: str) -> tuple[str, ...]:
        """The texts of a column of lists. Raises UsageError if it is of another kind, or empty."""
        value = self.pick(key, list)
        if not value or not all(isinstance(text, str) for text in value):
            raise UsageError(f"{self.where} has {str(value)[:200]!r} as '{key}', which is not a list of texts.")
        return tuple(value)


def find_shards(path: Path) -> list[Path]:
    """The files that a path with ``*`` stands for, in their order. Raises UsageError if one of a numbered set is not
    there."""
    if "*" not in path.name:
        return [path]
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise UsageError(f"There is no file '{path}'.")
    numbered = [match for each in found if (match := _SHARD.search(each.name))]
    totals = {match[2] for match in numbered}
    if len(numbered) == len(found) and len(totals) == 1:
        there = [int(match[1]) for match in numbered]
        absent = sorted(set(range(int(totals.pop()))) - set(there))
        if absent:
            raise UsageError(
                f"{len(absent)} of the {len(absent) + len(set(there))} files '{path}' are missing, the first of them "
                f"number {absent[0]:05d}."
            )
        if len(set(there)) == len(there):
            return found
    if len(found) == 1:
        return found
    raise UsageError(
        f"'{path}' stands for {len(found)} files that are not one set of numbered shards, such as '{found[0].name}' "
        f"and '{found[-1].name}': keep those of one version."
    )


def read_shards(
    path: Path, columns: Sequence[str], optional: Sequence[str] = (), images: Sequence[str] = ()
) -> Iterator[ShardRow]:
    """The rows of all shards in order, with these columns.

    Args:
        path: of one file, or of several with ``*`` in its name.
        optional: columns that may be missing; their values are None then.
        images: columns of images, whose values are not read. A cell that is null holds none.

    Raises:
        UsageError: a file is missing, damaged, or lacks a column.
    """
    from llava.data.parquet_rows import ParquetImage  # with numpy, which the parser of a command line does not need
    from llava.data.pinned_file import pin
    from llava.data.row_groups import open_parquet, read_row_group, telling_damage

    number = 0
    for shard in find_shards(path):
        with open_parquet(str(shard)) as file:
            names, num_groups = list(file.schema_arrow.names), file.metadata.num_row_groups
        wanted = [*columns, *images]
        if absent := [name for name in wanted if name not in names]:
            raise UsageError(
                f"'{shard}' has no column '{absent[0]}'; it has: {', '.join(names)}. It is another data set, or "
                "another version of it."
            )
        texts = [*columns, *(name for name in optional if name in names)]
        mtime_ns = pin(str(shard)).mtime_ns
        for group in range(num_groups):
            table = read_row_group(str(shard), mtime_ns, group, texts)
            with telling_damage(str(shard), group):
                rows = table.to_pylist()
            for own, values in enumerate(rows):
                where = f"Row {number} of '{shard}'"
                made = (
                    ShardImage(ParquetImage(str(shard), mtime_ns, group, own, name, None, f"in {where.lower()}"))
                    for name in images
                )
                yield ShardRow(number, {**dict.fromkeys(optional), **values}, where, tuple(made))
                number += 1
