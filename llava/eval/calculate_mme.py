"""Front door: ``python -m llava.eval.calculate_mme``, MME's calculation.py without scikit-learn.

Deliberate differences from the original: the two questions about an image find each other by the image's name and not
by their lines, and files that it would score wrongly or fail at are refused.

Source: MME's calculation.py, as in zjunlp/Deco@a3ccc15 eval_tool/calculation.py without its line ``print(args)``.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
from collections import Counter
from collections.abc import Sequence

from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.scoring.mme_pairs import GROUPS, QUESTIONS_PER_IMAGE, add_scores, score_category
from llava.eval.scoring.yes_no import read_mme
from llava.text import write_line

_COLUMNS = 4  # image, question, truth, answer


def score_file(path: Path) -> tuple[float, int]:
    """The score of a category's file, and how many answers are neither yes nor no. Raises UsageError."""
    images: dict[str, list[bool]] = {}
    order: list[str] = []
    num_others = 0
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is not UTF-8 text: {error}.") from error
    for number, line in enumerate(lines[:-1] if not lines[-1] else lines, 1):
        columns = line.split("\t")
        if len(columns) != _COLUMNS or columns[2].lower() not in ("yes", "no"):
            raise UsageError(
                f"Line {number} of '{path}' is not an image, a question, Yes or No, and an answer, with tabs between: "
                f"{line[:80]!r}. An answer may hold a line break or a tab: convert it with convert_answer_to_mme.py."
            )
        reading = read_mme(columns[3])
        num_others += reading == "other"
        images.setdefault(columns[0], []).append(reading == columns[2].lower())
        order.append(columns[0])
    if not images:
        raise UsageError(f"'{path}' is empty.")
    if lines[-1]:
        write_line(f"llava: the last line of '{path}' has no line break: the file may be cut off.")
    if odd := [name for name, rights in images.items() if len(rights) != QUESTIONS_PER_IMAGE]:
        raise UsageError(
            f"'{path}' has {len(images[odd[0]])} lines about '{odd[0]}' ({len(odd)} such images); each image has two "
            "questions. Answer all of them, each once."
        )
    pairs = zip(order[::QUESTIONS_PER_IMAGE], order[1::QUESTIONS_PER_IMAGE], strict=True)
    if apart := sum(first != second for first, second in pairs):
        write_line(
            f"llava: in '{path}' the two lines of an image are not always beside each other ({apart} pairs of lines); "
            "they are scored by the image's name, and MME's own script pairs lines."
        )
    return score_category(images.values()), num_others


def print_scores(folder: Path) -> None:
    """Prints both groups' scores as the original does. Raises UsageError for files that are missing or damaged."""
    missing = [name for names in GROUPS.values() for name in names if not (folder / f"{name}.txt").is_file()]
    if missing:
        raise UsageError(
            f"'{folder}' lacks {len(missing)} of MME's {sum(map(len, GROUPS.values()))} categories: "
            f"{', '.join(f'{name}.txt' for name in missing)}."
        )
    others = Counter[str]()
    tables: dict[str, dict[str, float]] = {}
    for group, names in GROUPS.items():  # all files are read before anything is printed
        tables[group] = {}
        for name in names:
            tables[group][name], others[name] = score_file(folder / f"{name}.txt")
    for group, table in tables.items():
        print("===========", group, "===========")
        print("total score:", add_scores(table.values()), "\n")
        for name, score in table.items():
            print("\t", name, " score:", score)
        print("\n")
    if others.total():
        counts = ", ".join(f"{name} {num}" for name, num in others.items() if num)
        write_line(f"llava: {others.total()} answers are neither yes nor no and count as wrong: {counts}.")


def main(argv: Sequence[str] | None = None) -> int:
    """Scores the files of a folder; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.calculate_mme")
    parser.add_argument("--results_dir", default="./LaVIN", type=Path)
    folder = parser.parse_args(argv).results_dir

    def work() -> int:
        print_scores(folder)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
