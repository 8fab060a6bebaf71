"""Checks every row of data files once, in several processes, and goes on where it was interrupted.

What was found is appended to a journal, a line for each batch of rows, so that after a kill only the batches without a
complete line are done again. Duplicates are found at the end, in the order of the rows, so that the result is the same
however often it was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from llava.data.json_scan import ScannedRow, open_data
from llava.data.long_work import LongWork
from llava.data.readers import scan_rows
from llava.data.row_check import Meter, RowChecker, RowFacts
from llava.data.whole_file import hold_file
from llava.data.worker_processes import start_worker
from llava.errors import LlavaError, UsageError
from llava.text import write_line

_BATCH_ROWS = 64
_BATCH_BYTES = 8 * 1024 * 1024  # of the rows' text, so that long rows do not add up; no row is cut
_WAITING_PER_WORKER = 4
_MOST_WAITING_BYTES = 256 * 1024 * 1024
_VERSION = 2

Batch = tuple[str, list[ScannedRow]]


def check_files(
    files: list[str],
    folder: Path,
    journal: Path,
    *,
    workers: int = 1,
    make_meter: Callable[[], Meter] | None = None,
    options: dict[str, Any] | None = None,
) -> list[RowFacts]:
    """The facts about every row of the files, in order, duplicates among them found.

    Args:
        folder: of the images; "" is the current one, and names may be any path.
        journal: of an interrupted check of the same files, or to be made; it stays until the caller removes it.
        make_meter: makes what measures tokens, in each process; it has to be picklable.
        options: whatever else the facts depend on.

    Raises:
        UsageError: a file is missing or no data file.
        LlavaError: the journal cannot be written, or a process was killed.
    """
    for file in files:
        if file.endswith((".yaml", ".yml")):
            raise UsageError(f"'{file}' names data files: check each of them.")
        open_data(file).close()  # a missing one is told before the work
    make_checker = _MakeChecker(folder, make_meter)
    key = {"version": _VERSION, "files": [_identify(file) for file in files], "folder": str(folder), **(options or {})}
    facts: list[RowFacts] = []
    with _Journal(journal, key) as written:
        facts += written.facts
        batches = islice(_cut(files), written.num_batches, None)  # reading what is passed over costs little
        with LongWork("Checking", None, " rows") as work:
            work.move_to(len(facts))
            for checked in _check_all(batches, make_checker, workers):
                written.append(checked)
                facts += checked
                work.move_to(len(facts))
    check_unchanged(key["files"], journal)
    if not facts:
        remove_journal(journal)
        raise UsageError(f"There is no row in {', '.join(files[:3])}{', ...' if len(files) > 3 else ''}.")
    find_duplicates(facts)
    return facts


def check_unchanged(states: list[list[Any]], journal: Path) -> None:
    """Raises UsageError if a file has changed since ``_identify``; the journal, which is of no use then, is removed."""
    for state in states:
        if not os.path.exists(state[0]) or _identify(state[0]) != state:
            remove_journal(journal)
            raise UsageError(f"The data file '{state[0]}' was changed while it was checked: start again.")


class _MakeChecker:
    def __init__(self, folder: Path, make_meter: Callable[[], Meter] | None) -> None:
        self.folder, self.make_meter = folder, make_meter

    def __call__(self) -> RowChecker:
        meter = None if self.make_meter is None else self.make_meter()
        return RowChecker(self.folder, str(self.folder) in ("", "."), meter)


def _identify(file: str) -> list[Any]:
    status = os.stat(file)
    return [file, status.st_size, status.st_mtime_ns]


def _cut(files: list[str]) -> Iterator[Batch]:
    for file in files:
        batch: list[ScannedRow] = []
        num_bytes = 0
        for row in scan_rows(file):
            batch.append(row)
            num_bytes += row.num_bytes
            if len(batch) == _BATCH_ROWS or num_bytes >= _BATCH_BYTES:
                yield file, batch
                batch, num_bytes = [], 0
        if batch:
            yield file, batch


def _check_all(batches: Iterator[Batch], make_checker: _MakeChecker, workers: int) -> Iterator[list[RowFacts]]:
    """The facts about each batch, in order. Raises LlavaError if a process was killed."""
    if workers == 1:
        checker = make_checker()
        for file, rows in batches:
            yield [checker.check(row, file) for row in rows]
        return
    waiting: deque[tuple[Future[list[RowFacts]], int]] = deque()
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (make_checker,))
    try:
        for batch in batches:
            waiting.append((pool.submit(_check_batch, batch), sum(row.num_bytes for row in batch[1])))
            while len(waiting) >= workers * _WAITING_PER_WORKER or (
                waiting and sum(num_bytes for _, num_bytes in waiting) > _MOST_WAITING_BYTES
            ):
                yield waiting.popleft()[0].result()
        while waiting:
            yield waiting.popleft()[0].result()
    except BrokenProcessPool as error:
        raise LlavaError(
            "A process of the check was killed, perhaps for want of memory. Run the same command again, with fewer "
            "--workers: it goes on where it was."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_checker: RowChecker | None = None


def _start_worker(make_checker: _MakeChecker) -> None:
    global _checker
    start_worker()
    _checker = make_checker()


def _check_batch(batch: Batch) -> list[RowFacts]:
    assert _checker is not None
    file, rows = batch
    return [_checker.check(row, file) for row in rows]


class _Journal:
    """The facts that were written before, and a file to append more to."""

    def __init__(self, path: Path, key: dict[str, Any]) -> None:
        self.path, self.facts, self.num_batches = path, list[RowFacts](), 0
        head = json.dumps(key) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._file = path.open("r+b")
            length = self._hold_and_read(head)
            self._file.truncate(length)
            self._file.seek(length)
            if not length:
                self._write(head)
        except OSError as error:
            raise self._refuse(error) from error
        if self.facts:
            write_line(f"llava: {len(self.facts):,} rows were checked before; going on after them.")

    def _hold_and_read(self, head: str) -> int:
        try:
            hold_file(self._file, self.path)
            return self._read(head)
        except BaseException:
            self._file.close()
            raise

    def _read(self, head: str) -> int:
        """Takes the complete lines of an interrupted check of the same; returns their bytes, 0 for any other file."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            length = len(head) if file.readline() == head.encode() else 0
            while length and (line := file.readline()).endswith(b"\n"):
                try:
                    batch = [RowFacts.from_list(each) for each in json.loads(line)]
                except (ValueError, TypeError):
                    break
                self.facts += batch
                self.num_batches += 1
                length += len(line)
            return length
        return 0

    def append(self, batch: list[RowFacts]) -> None:
        """Writes the facts of one batch. Raises LlavaError."""
        try:
            self.num_batches += 1
            self._write(json.dumps([each.to_list() for each in batch]) + "\n")
        except OSError as error:
            raise self._refuse(error) from error

    def _write(self, line: str) -> None:
        self._file.write(line.encode())
        self._file.flush()

    def _refuse(self, error: OSError) -> LlavaError:
        return LlavaError(
            f"{self.path} cannot be written: {error.strerror or error}. Make room, or name another place with --bad; "
            "then run the same command again: it goes on where it was."
        )

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):  # it was told when it was written
            self._file.close()
            if not self.facts and error[0] is not None and not self.num_batches:
                self.path.unlink()


def find_duplicates(facts: list[RowFacts]) -> None:
    """Adds a finding to each row that repeats another one, and to each that has the id of an earlier one.

    Of equal rows the first without a fault is the one that the others repeat, so that it is kept: one may declare a
    wrong size, say, and the next the right one.
    """
    rows: dict[bytes, RowFacts] = {}
    ids: dict[bytes, RowFacts] = {}
    for each in (*(each for each in facts if not each.is_bad), *facts):
        if each.content_digest:
            rows.setdefault(_content(each), each)
    for each in facts:
        if not each.content_digest:
            continue
        first = rows[_content(each)]
        if first is not each:
            each.findings.append(("duplicate row", f"the same as {_say_place(first)}"))
            continue
        if each.id_digest:
            first = ids.setdefault(bytes.fromhex(each.id_digest), each)
            if first is not each:
                each.findings.append(("duplicate id", f"{_say_place(first)} has this id and other content"))


def _content(facts: RowFacts) -> bytes:
    return bytes.fromhex(facts.content_digest + facts.id_digest)


def _say_place(facts: RowFacts) -> str:
    return f"row {facts.number} of {facts.file}"


def remove_journal(journal: Path) -> None:
    """Removes the journal of a check that is complete."""
    journal.unlink(missing_ok=True)


def check_workers(workers: int | None) -> int:
    """The number of processes: by default one for each core, at most 8. Raises UsageError below 1."""
    if workers is None:
        return max(1, min(8, os.cpu_count() or 1))
    if workers < 1:
        raise UsageError(f"--workers is {workers}; it has to be 1 or more.")
    return workers
