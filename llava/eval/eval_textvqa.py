"""Front door: ``python -m llava.eval.eval_textvqa``, the original's score of TextVQA answers, and its names.

It translates the command line and decides nothing; what the original passes over in silence is said on stderr.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_textvqa.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import os
from collections.abc import Sequence

from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick, read_json, read_whole_lines
from llava.eval.scoring.textvqa_join import join_textvqa
from llava.eval.scoring.textvqa_join import read_question as prompt_processor
from llava.eval.scoring.vqa_accuracy import score_m4c
from llava.eval.submission import say_empty
from llava.text import write_line

__all__ = ["eval_single", "get_args", "prompt_processor"]


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The original's flags."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.eval_textvqa")
    parser.add_argument("--annotation-file", type=str)
    parser.add_argument("--result-file", type=str)
    parser.add_argument("--result-dir", type=str)
    return parser.parse_args(argv)


def eval_single(annotation_file: str, result_file: str) -> None:
    """Prints the name of an answers file, its number of answers and their accuracy."""
    annotations = pick(_object(read_json(annotation_file), annotation_file), "data", annotation_file)
    results = read_whole_lines(result_file)
    joined = join_textvqa(results, annotations)
    if not joined:
        raise UsageError(f"'{result_file}' has no answers.")
    repeated = find_repeated((row.get("question_id"), prompt_processor(row["prompt"])) for row in results)
    if repeated:
        write_line(
            f"llava: {len(repeated)} questions are answered more than once in '{result_file}'; each time counts."
        )
    say_empty((text for text, _ in joined), result_file)
    scores = [score_m4c(text, people).score for text, people in joined]
    print(os.path.splitext(os.path.basename(result_file))[0])
    print(f"Samples: {len(scores)}\nAccuracy: {100.0 * (sum(scores) / len(scores)):.2f}%\n")


def _object(value: object, path: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise UsageError(f"'{path}' is not TextVQA's annotation file: it holds no object with 'data'.")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Scores the answers file, and then every ``.jsonl`` of the folder; returns the exit code."""
    args = get_args(argv)

    def work() -> int:
        if args.annotation_file is None or (args.result_file is None and args.result_dir is None):
            raise UsageError(
                "Name the annotations with --annotation-file, and answers with --result-file or --result-dir."
            )
        if args.result_file is not None:
            eval_single(args.annotation_file, args.result_file)
        for path in sorted(Path(args.result_dir).iterdir()) if args.result_dir is not None else ():
            if path.name.endswith(".jsonl"):
                eval_single(args.annotation_file, str(path))
            else:
                print(f"Skipping {path.name}")
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
