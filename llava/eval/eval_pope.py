"""Front door: ``python -m llava.eval.eval_pope``, the original's score of POPE answers.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_pope.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import os
from collections.abc import Sequence
from typing import Any

from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick_text, read_whole_lines
from llava.eval.scoring.pope_counts import PopeCounts, count_pope, join_pope
from llava.eval.submission import pick_id, say_empty
from llava.text import write_line


def print_counts(counts: PopeCounts) -> None:
    """Prints a category's counts and measures as the original does."""
    print(f"TP\tFP\tTN\tFN\t\n{counts.tp}\t{counts.fp}\t{counts.tn}\t{counts.fn}")
    print(f"Accuracy: {counts.accuracy}\nPrecision: {counts.precision}\nRecall: {counts.recall}")
    print(f"F1 score: {counts.f1}\nYes ratio: {counts.yes_ratio}")
    values = (counts.f1, counts.accuracy, counts.precision, counts.recall, counts.yes_ratio)
    print(", ".join(f"{value:.3f}" for value in values))
    if not counts.tp:
        write_line("llava: no answer yes is right: F1 is 0 here, and the original stops.")


def read_answers(question_file: str, result_file: str) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """Pairs of a question and its answer, by category. Raises UsageError for files that do not belong together."""
    rows = read_whole_lines(question_file)
    questions = {pick_id(row, "question_id", question_file): row for row in rows}
    answers = read_whole_lines(result_file)
    ids = [pick_id(row, "question_id", result_file) for row in answers]
    for path, keys in ((question_file, [row["question_id"] for row in rows]), (result_file, ids)):
        if repeated := find_repeated(keys):
            raise UsageError(f"{len(repeated)} questions occur more than once in '{path}': {repeated[0]!r}.")
    strangers = [key for key in ids if key not in questions]
    if strangers:
        raise UsageError(
            f"{len(strangers)} answers in '{result_file}' are to questions that '{question_file}' does not have, "
            f"such as {strangers[0]!r}."
        )
    found: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for key, row in zip(ids, answers, strict=True):
        category = pick_text(questions[key], "category", question_file)
        found.setdefault(category, []).append((questions[key], pick_text(row, "text", result_file)))
    return found


def score_files(annotation_dir: str, question_file: str, result_file: str) -> None:
    """Prints the score of each category, in the order in which the file system lists the label files."""
    answers = read_answers(question_file, result_file)
    counts: dict[str, PopeCounts] = {}
    for name in os.listdir(annotation_dir):
        if not name.startswith("coco_pope_") or not name.endswith(".json"):
            raise UsageError(f"'{annotation_dir}' holds '{name}'; it may hold only files coco_pope_CATEGORY.json.")
        category, path = name[len("coco_pope_") : -len(".json")], os.path.join(annotation_dir, name)
        counts[category] = count_pope(join_pope(answers.get(category, []), read_whole_lines(path), path))
    if not counts:
        raise UsageError(f"'{annotation_dir}' holds no file coco_pope_CATEGORY.json.")
    for category, one in counts.items():  # all files are read before anything is printed
        print(f"Category: {category}, # samples: {one.num}")
        print_counts(one)
        print("====================================")
    write_line(
        f"llava: mean F1 of {len(counts)} categories: {sum(one.f1 for one in counts.values()) / len(counts):.4f}"
    )
    if unscored := {name: len(found) for name, found in answers.items() if name not in counts}:
        names = ", ".join(f"{name} ({num})" for name, num in unscored.items())
        write_line(f"llava: answers in categories without a label file in '{annotation_dir}' are not scored: {names}.")
    say_empty((text for found in answers.values() for _, text in found), result_file)


def main(argv: Sequence[str] | None = None) -> int:
    """Scores the answers of every category that has a label file; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.eval_pope")
    for flag in ("--annotation-dir", "--question-file", "--result-file"):
        parser.add_argument(flag, type=str, required=True)
    args = parser.parse_args(argv)

    def work() -> int:
        score_files(args.annotation_dir, args.question_file, args.result_file)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
