"""``llava data overlap``: what training data shares with a benchmark."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

from llava.commands.flags import add_command
from llava.errors import LlavaError, UsageError
from llava.text import fit_line, write_line

_LINE_EVERY_S = 5.0
_MOST_NAMED = 5
_TABLE_COLUMNS = 120


def add_overlap(actions: Any) -> None:
    """Adds the command to the parser's ``actions``."""
    text = "Find images and questions of training data that a benchmark has too."
    parser = add_command(actions, "overlap", _overlap, text)
    parser.add_argument("train", nargs="+", metavar="TRAIN", help="training data: data files, or folders of images")
    parser.add_argument(
        "--with",
        dest="eval",
        nargs="+",
        required=True,
        metavar="EVAL",
        help="the benchmark, likewise, or questions",
    )
    parser.add_argument("--images", default="", metavar="DIR", help="where the images of TRAIN's data files are")
    parser.add_argument("--with-images", metavar="DIR", help="the same for EVAL (default: that of TRAIN)")
    parser.add_argument("--out", default="overlap", metavar="DIR", help="for hashes and results (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: one for each core that may be used)"
    )
    parser.add_argument(
        "--fail-above",
        type=float,
        metavar="RATE",
        help="exit with code 1 if more than this share of the benchmark's images is shared, such as 0 or 0.01",
    )


def _overlap(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from rich.console import Console

    from llava.data.collection.journal import lock_folder
    from llava.data.fingerprint_store import FingerprintStore
    from llava.data.overlap import find_overlap, gather
    from llava.data.overlap_report import make_table, write_files

    num_workers = arguments.workers if arguments.workers is not None else _count_cores()
    if num_workers < 1:
        raise UsageError(f"--workers is {num_workers}; it has to be at least 1.")
    limit = arguments.fail_above
    if limit is not None and not 0 <= limit <= 1:
        raise UsageError(f"--fail-above is {limit:g}; it is a share of the images, from 0 to 1.")
    train = gather(arguments.train, arguments.images)
    benchmark = gather(arguments.eval, arguments.images if arguments.with_images is None else arguments.with_images)
    if limit is not None and not benchmark.images:
        raise UsageError("--fail-above needs a benchmark with images, and this one has none.")
    folder = Path(arguments.out)
    with lock_folder(folder), FingerprintStore(folder / "fingerprints.bin") as store:
        overlap = find_overlap(train, benchmark, store, num_workers, _Progress())
    files = write_files(overlap, folder)
    console = Console()
    console.width = console.width if console.is_terminal else _TABLE_COLUMNS
    console.print(make_table(overlap))
    _say_doubts(overlap)
    print(f"{overlap.num_shared:,} of the benchmark's {overlap.num_eval:,} images are shared: {overlap.share:.2%}.")
    print(f"Wrote {', '.join(str(path) for path in files)}.")
    for side, flag, corpus in (("training data", "--images", train), ("benchmark", "--with-images", benchmark)):
        if corpus.images and len(corpus.broken) == len(corpus.images):
            raise LlavaError(
                f"None of the {len(corpus.images):,} images of the {side} can be read, so no image was compared: "
                f"check {flag}."
            )
    if limit is not None and overlap.share > limit:
        write_line(f"llava: {overlap.share:.2%} of the benchmark's images are shared, and --fail-above is {limit:g}.")
        return 1
    return 0


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Progress:
    """Says every few seconds how far the work is."""

    def __init__(self) -> None:
        self._what, self._start, self._said = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._start, self._said = what, now, now
        if now - self._said < _LINE_EVERY_S and (done < total or self._said == self._start or not total):
            return
        self._said = now
        rate = done / max(now - self._start, 1e-9)
        left = (total - done) / max(rate, 1e-9) / 60
        of = f" of {total:,} ({done / total:.0%}), {left:,.0f} min left" if total else ""
        write_line(f"llava: {what}: {done:,}{of}, {rate:,.0f} a second")


def _say_doubts(overlap: Any) -> None:
    """Says what was not compared."""
    for side, corpus in (("training data", overlap.train), ("benchmark", overlap.eval)):
        broken = sorted(corpus.broken.items())
        if broken:
            more = f" And {len(broken) - _MOST_NAMED:,} more." if len(broken) > _MOST_NAMED else ""
            write_line(f"llava: {len(broken):,} of {len(corpus.images):,} images of the {side} cannot be read:{more}")
            for _, message in broken[:_MOST_NAMED]:
                write_line(f"llava:   {fit_line(message)}")
    if overlap.num_flat:
        write_line(
            f"llava: {overlap.num_flat:,} images of the benchmark are of one colour: only equal files were looked for."
        )
    if overlap.num_left_out:
        write_line(f"llava: {overlap.num_left_out:,} candidates were not compared: their image had 50 nearer ones.")
    for message in overlap.unread[:_MOST_NAMED]:
        write_line(f"llava: not compared: {fit_line(message)}")
