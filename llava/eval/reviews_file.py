"""The reviews file: a row a review, in the questions' order, and the same after a kill and a resumed run.

Replies come in any order; a row is written as soon as all rows before it are. What was answered is in the judge's
journal beside it (``FILE.replies``), so a kill loses nothing. A review without a reply has no row, and the next run
asks for it. Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_gpt_review_bench.py (the rows).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from llava.data.collection.journal import write_whole
from llava.errors import LlavaError, UsageError
from llava.eval.json_files import read_json_lines
from llava.eval.pair_reviews import PairRow
from llava.text import write_line


def find_journal(path: Path) -> Path:
    """The judge's journal of a reviews file. Its name does not end like that of a reviews file."""
    return path.with_name(f"{path.name}.replies")


class ReviewsFile:
    """A reviews file, written in order.

    Args:
        rows: the reviews to be made.
        say_kept: gets the place of each row that the file has already, in order with ``say_written``.
        say_written: gets the place and the content of each new one.

    Raises:
        UsageError: the file reviews other answers.
    """

    def __init__(
        self,
        path: Path,
        rows: Sequence[PairRow],
        parse: Callable[[str], list[float]],
        say_kept: Callable[[int], object],
        say_written: Callable[[int], object],
    ) -> None:
        self.path, self._rows, self._parse = path, rows, parse
        self._say_kept, self._say_written = say_kept, say_written
        self.reviews: dict[int, dict[str, Any]] = {}
        self._is_in_order = True
        self._next = 0
        self._file: TextIO | None = None
        self._known: set[int] = set()
        if path.is_file():
            self._read()
        elif path.exists():
            raise UsageError(f"'{path}' is not a file; name one with --output.")

    def _read(self) -> None:
        found = read_json_lines(self.path)
        if found.broken:
            write_line(
                f"llava: {len(found.broken)} lines of '{self.path}' are half-written or broken, the first is line "
                f"{found.broken[0]}; their reviews are made again."
            )
            self._is_in_order = False
        if not self.path.read_bytes().endswith(b"\n"):
            self._is_in_order = False  # nothing can be appended to this line
        order = []
        for review in found.rows:
            place = review.get("id")
            is_place = isinstance(place, int) and 1 <= place <= len(self._rows)
            facts = self._rows[place - 1].facts if isinstance(place, int) and is_place else {}
            if not facts or any(review.get(key) != value for key, value in facts.items()):
                raise UsageError(
                    f"'{self.path}' has a review of other answers (id {place!r}, question "
                    f"{review.get('question_id')!r}). Remove it, or name another file with --output."
                )
            assert isinstance(place, int)
            order.append(place)
            if self.reviews.setdefault(place - 1, review) is not review:
                write_line(f"llava: '{self.path}' has more than one review with id {place}; the first one is kept.")
        self._known = set(self.reviews)
        self._is_in_order = self._is_in_order and order == list(range(1, len(order) + 1))

    def drop(self, is_dropped: Callable[[dict[str, Any]], bool]) -> int:
        """Removes the reviews that are to be made again; returns their number."""
        dropped = [place for place, review in self.reviews.items() if is_dropped(review)]
        for place in dropped:
            del self.reviews[place]
        self._known -= set(dropped)
        self._is_in_order = self._is_in_order and not dropped
        return len(dropped)

    def open(self) -> None:
        """Opens it for writing, and says what it has. Raises LlavaError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise LlavaError(f"'{self.path}' cannot be written: {error.strerror or error}.") from error
        self._pass()

    def add(self, place: int, content: str) -> None:
        """Keeps a reply, and writes all rows that have none missing before them."""
        if place not in self._known:
            self.reviews[place] = {**self._rows[place].facts, "content": content}
            self._pass()

    def _pass(self) -> None:
        while self._next in self.reviews:
            self._settle(self._next)
            self._next += 1

    def _settle(self, place: int) -> None:
        """Says a row, and appends it, if it is new and the file is complete up to it."""
        if place in self._known:
            self._say_kept(place)
            return
        review = self.reviews[place]
        review["tuple"] = self._parse(review["content"])
        if self._is_in_order and self._file is not None:
            self._file.write(json.dumps(review) + "\n")
            self._file.flush()
        self._say_written(place)

    def close(self) -> None:
        """Writes the rows after a missing one, too, and closes the file. Idempotent."""
        if self._file is None:
            return
        late = [place for place in sorted(self.reviews) if place >= self._next]
        self._is_in_order = self._is_in_order and not late
        for place in late:
            self._settle(place)
        self._file.close()
        self._file = None
        if not self._is_in_order:
            lines = [json.dumps(self.reviews[place]) + "\n" for place in sorted(self.reviews)]
            write_whole(self.path.resolve(), "".join(lines).encode())
