"""Front door: ``python -m llava.eval.eval_science_qa_gpt4_requery``, ScienceQA by GPT-4 that was shown both answers.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_science_qa_gpt4_requery.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llava.data.collection.journal import write_whole
from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.science_files import Problem, read_outputs, read_problems, read_science_answers
from llava.eval.science_votes import Vote, VoteReader, build_parser
from llava.text import write_line

Votes = tuple[Vote, Vote, Vote]
"""The model's, GPT-4's, and GPT-4's after it was shown both."""


def count_votes(counts: Counter[str], votes: Votes, answer: int) -> int:
    """Adds a question to the counts; returns the place of the choice that counts in the end."""
    ours, gpt4, requery = votes
    final = ours if requery.is_failed else requery
    counts["gpt4_failed"] += gpt4.is_failed
    counts["gpt4_correct"] += gpt4.index == answer
    counts["gpt4_ourvisual_correct"] += (ours if gpt4.is_failed else gpt4).index == answer
    counts["our_correct"] += ours.index == answer
    counts["requery_correct"] += final.index == answer
    counts["correct_upperbound"] += answer in (gpt4.index, ours.index)
    return final.index


def print_wrong(votes: Votes, problem: Problem, prompt: str, options: Sequence[str]) -> None:
    """Prints a question whose last answer is wrong, in the original's words."""
    ours, gpt4, requery = votes
    print(f"\nQuestion ({options[problem.answer]}): {prompt}")
    for name, vote in (("Our", ours), ("GPT-4", gpt4), ("Requery", requery)):
        print(f"{name} ({vote.letter}): {vote.text}")
    print('print("=====================================")\n')


def score_files(args: argparse.Namespace) -> dict[str, Any]:
    """Prints the accuracies; returns the summary that the original writes."""
    problems = read_problems(args.base_dir, args.split, args.options)
    ours, again = read_science_answers(args.our_result), read_science_answers(args.requery_result, has_prompts=False)
    gpt4 = read_outputs(args.gpt4_result)
    for path, given in ((args.our_result, ours), (args.gpt4_result, gpt4)):
        if missing := [key for key in problems if key not in given]:
            raise UsageError(
                f"'{path}' has no answer to {len(missing)} of the {len(problems)} questions of the split "
                f"'{args.split}', the first of them {missing[0]!r}; all are needed."
            )
    if missing := [key for key in problems if key not in again]:
        write_line(f"llava: {len(missing)} questions are not in '{args.requery_result}'; the model's answer counts.")
    reader, counts, indices = VoteReader(args.options, args.dice), Counter[str](), {}
    for key, problem in problems.items():
        requeried = again[key]["text"] if key in again else "MISSING"
        texts = {"the model": ours[key]["text"], "GPT-4": gpt4[key], "the second query": requeried}
        first, second, third = (reader.read(name, text, problem) for name, text in texts.items())
        votes = (first, second, third)
        indices[key] = count_votes(counts, votes, problem.answer)
        if not third.is_failed and third.index != problem.answer:
            print_wrong(votes, problem, ours[key]["prompt"], args.options)
    total, correct = len(problems), counts["requery_correct"]
    for title, name, measure in (
        ("Our-Correct", "our_correct", "Accuracy"),
        ("GPT-4-Correct", "gpt4_correct", "Accuracy"),
        ("GPT-4 NO-ANS (RANDOM)", "gpt4_failed", "Percentage"),
        ("GPT-4-OursVisual-Correct", "gpt4_ourvisual_correct", "Accuracy"),
        ("Requery-Correct", "requery_correct", "Accuracy"),
        ("Correct upper", "correct_upperbound", "Accuracy"),
    ):
        print(f"Total: {total}, {title}: {counts[name]}, {measure}: {counts[name] / total * 100:.2f}%")
    reader.say_unread()
    return {"acc": correct / total * 100, "correct": correct, "count": total, "results": indices, "outputs": {}}


def main(argv: Sequence[str] | None = None) -> int:
    """Scores the answers and writes the summary; returns the exit code."""
    files = ("--gpt4-result", "--requery-result", "--our-result", "--output-result")
    args = build_parser("python -m llava.eval.eval_science_qa_gpt4_requery", files).parse_args(argv)

    def work() -> int:
        summary = score_files(args)
        write_whole(Path(args.output_result).resolve(), json.dumps(summary, indent=2).encode())
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
