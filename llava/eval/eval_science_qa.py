"""Front door: ``python -m llava.eval.eval_science_qa``, the original's score of ScienceQA answers.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_science_qa.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import json
from collections.abc import Sequence
from typing import Any

from llava.data.collection.journal import write_whole
from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.science_files import read_problems, read_science_answers
from llava.eval.scoring.science_qa import OPTIONS, index_of, read_science_qa
from llava.eval.submission import say_empty
from llava.text import write_line


def score_files(
    base_dir: str, split: str, result_file: str, options: Sequence[str] = OPTIONS
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The right and wrong answers with what was read, and the summary, as the original writes them."""
    problems = read_problems(base_dir, split, options)
    given = read_science_answers(result_file)
    missing = sum(key not in given for key in problems)
    if missing == len(problems):
        raise UsageError(f"'{result_file}' has no answer to a question of the split '{split}'.")
    if missing:
        write_line(
            f"llava: {missing} of the {len(problems)} questions have no answer and count as wrong and without image."
        )
    if strangers := [key for key in given if key not in problems]:
        write_line(
            f"llava: {len(strangers)} answers in '{result_file}' are to questions outside of the split '{split}', such "
            f"as {strangers[0]!r}, and are left out."
        )
    say_empty((row["text"] for row in given.values()), result_file)
    results: dict[str, list[Any]] = {"correct": [], "incorrect": []}
    indices: dict[str, int] = {}
    outputs: dict[str, str] = {}
    for key, problem in problems.items():
        row = given.get(key, {"text": "FAILED", "prompt": "Unknown"})
        letter = read_science_qa(row["text"], options)
        indices[key], outputs[key] = index_of(letter, len(problem.choices), options), row["text"]
        results["correct" if indices[key] == problem.answer else "incorrect"].append(
            {
                "question_id": key,
                "parsed_ans": letter,
                "ground_truth": options[problem.answer],
                "question": row["prompt"],
                "pred": row["text"],
                "is_multimodal": "<image>" in row["prompt"],
            }
        )
    num = len(indices)
    correct = len(results["correct"])
    summary = {"acc": correct / num * 100, "correct": correct, "count": num, "results": indices, "outputs": outputs}
    return results, summary


def print_summary(results: dict[str, list[Any]]) -> None:
    """Prints the accuracy over all questions and over those with an image."""
    right, wrong = results["correct"], results["incorrect"]
    num, correct = len(right) + len(wrong), len(right)
    image_right, image_wrong = (sum(row["is_multimodal"] for row in rows) for rows in (right, wrong))
    images = image_right + image_wrong
    if not images:
        write_line("llava: no prompt holds <image>, so there is no IMG-Accuracy; the original stops here.")
    share = f"{image_right / images * 100:.2f}%" if images else "n/a"
    print(f"Total: {num}, Correct: {correct}, Accuracy: {correct / num * 100:.2f}%, IMG-Accuracy: {share}")


def main(argv: Sequence[str] | None = None) -> int:
    """Scores the answers file and writes both reports; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.eval_science_qa")
    for flag in ("--base-dir", "--result-file", "--output-file", "--output-result"):
        parser.add_argument(flag, type=str, required=True)
    parser.add_argument("--split", type=str, default="test")
    parser.add_argument("--options", type=list, default=list(OPTIONS), metavar="LETTERS")
    args = parser.parse_args(argv)

    def work() -> int:
        results, summary = score_files(args.base_dir, args.split, args.result_file, args.options)
        print_summary(results)
        for path, value in ((args.output_file, results), (args.output_result, summary)):
            write_whole(Path(path).resolve(), json.dumps(value, indent=2).encode())
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
