"""The summary of reviews files: scores by category, and how many reviews are left out because they hold none.

The original averages failures in, as -1 or NaN; what it would print is said beside. Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/summarize_gpt_review.py.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.json_files import pick, read_json_lines
from llava.eval.scoring.judged import LEAST, MOST, PairSummary, is_failed, summarize_pairs
from llava.text import write_line

RULE = "================================="
Scores = dict[str, list[Sequence[float]]]


def find_review_files(folder: str) -> list[str]:
    """The names of the reviews files of a folder, by the original's rule."""
    begins = ("gpt4_text", "reviews_", "review_")
    names = [name for name in os.listdir(folder) if name.endswith(".jsonl")]
    return [name for name in names if name.startswith(begins) or "review" in folder]


def find_label(name: str) -> tuple[str, str]:
    """What a file's summary is called, and the judge's version by the file's name: 0613 or else 0314."""
    label = os.path.basename(name).replace("gpt4_text_", "").replace(".jsonl", "")
    return label, "0613" if "0613" in label else "0314"


def read_scores(path: Path, ignored: Collection[int] = ()) -> tuple[Scores, Scores]:
    """The pairs of scores by category and under "all": the good ones, and all as the original takes them."""
    lines = read_json_lines(path)
    if lines.broken:
        write_line(
            f"llava: {len(lines.broken)} lines of '{path}' are half-written or broken and left out; the first is line "
            f"{lines.broken[0]}."
        )
    good: Scores = defaultdict(list)
    taken: Scores = defaultdict(list)
    for row in lines.rows:
        if pick(row, "question_id", path) in ignored:
            continue
        pair: Any = row.get("tuple", row.get("score"))
        names = [row["category"], "all"] if "category" in row else ["all"]
        for name in names:
            taken[str(name)].append(pair)
            if not is_failed(pair):
                good[str(name)].append(pair)
    return good, taken


def print_summary(path: Path, ignored: Collection[int] = ()) -> None:
    """Prints a line for each category. Raises UsageError for a file that holds no scores at all."""
    good, taken = read_scores(path, ignored)
    if not good:
        raise UsageError(f"'{path}' has no review with scores ({len(taken.get('all', ()))} reviews).")
    for name, pairs in sorted(good.items()):
        print(name, _write(summarize_pairs(pairs)))
    num_failed = len(taken["all"]) - len(good["all"])
    if num_failed:
        write_line(
            f"llava: {num_failed} of the {len(taken['all'])} reviews in '{path}' hold no scores and are left out; the "
            f"original counts them as they are and prints: all {_imitate(taken['all'])}."
        )
    _say_off_scale(path, good["all"])
    if absent := sorted(set(taken) - set(good)):
        write_line(f"llava: no review with scores is of the category {', '.join(absent)}.")


def _say_off_scale(path: Path, pairs: Sequence[Sequence[float]]) -> None:
    """Says what a strict reading would make of the file, where that is something else."""
    kept = [pair for pair in pairs if all(LEAST <= score <= MOST for score in pair)]
    if len(kept) == len(pairs):
        return
    others = f"without them: all {_write(summarize_pairs(kept))}" if kept else "no other review is left"
    write_line(
        f"llava: {len(pairs) - len(kept)} of the reviews in '{path}' are off the judge's scale of {LEAST:g} to "
        f"{MOST:g}, as a strict reading says; {others}."
    )


def _write(summary: PairSummary) -> str:
    if summary.relative is None:
        raise UsageError("All reference answers are scored 0, so no score relative to them exists.")
    return summary.line


def _imitate(pairs: Sequence[Sequence[float]]) -> str:
    try:
        return summarize_pairs(pairs).line
    except (TypeError, ValueError):
        return "nothing, since it stops at a review without a pair"
