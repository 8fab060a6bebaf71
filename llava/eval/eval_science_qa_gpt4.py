"""Front door: ``python -m llava.eval.eval_science_qa_gpt4``, ScienceQA by GPT-4, and by the model where GPT-4 fails.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_science_qa_gpt4.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
from collections.abc import Sequence

from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.science_files import read_outputs, read_problems, read_science_answers
from llava.eval.science_votes import VoteReader, build_parser
from llava.text import write_line


def score_files(args: argparse.Namespace) -> None:
    """Prints the accuracy of both together, the accuracy if either may be right, and how often GPT-4 fails."""
    problems = read_problems(args.base_dir, args.split, args.options)
    ours = read_science_answers(args.our_result, has_prompts=False)
    gpt4 = read_outputs(args.gpt4_result)
    reader = VoteReader(args.options, args.dice)
    total = correct = upper = failed = 0
    for key, problem in problems.items():
        if key not in ours or key not in gpt4:
            continue
        our_vote = reader.read("the model", ours[key]["text"], problem)
        vote = reader.read("GPT-4", gpt4[key], problem)
        failed += vote.is_failed
        index = our_vote.index if vote.is_failed else vote.index
        total += 1
        correct += index == problem.answer
        upper += problem.answer in (index, our_vote.index)
    if not total:
        raise UsageError(
            f"No question of the split '{args.split}' is answered both in '{args.our_result}' and in "
            f"'{args.gpt4_result}'."
        )
    if total < len(problems):
        write_line(f"llava: {len(problems) - total} of the {len(problems)} questions lack an answer and are left out.")
    print(f"Total: {total}, Correct: {correct}, Accuracy: {correct / total * 100:.2f}%")
    print(f"Total: {total}, Correct (upper): {upper}, Accuracy: {upper / total * 100:.2f}%")
    print(f"Total: {total}, GPT-4 NO-ANS (RANDOM): {failed}, Percentage: {failed / total * 100:.2f}%")
    reader.say_unread()


def main(argv: Sequence[str] | None = None) -> int:
    """Scores the answers; returns the exit code."""
    parser = build_parser("python -m llava.eval.eval_science_qa_gpt4", ("--gpt4-result", "--our-result"))
    args = parser.parse_args(argv)

    def work() -> int:
        score_files(args)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
