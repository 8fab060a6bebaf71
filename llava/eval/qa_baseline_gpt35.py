"""Front door: ``python -m llava.eval.qa_baseline_gpt35``, a text model's answers to questions.

It translates the command line and decides nothing. Deliberate differences from the original: answers are kept as they
come, so a killed run goes on; a question without an answer has no row, where the original writes "#ERROR#"; answer_id
follows from the question and the model.

Source: haotian-liu/LLaVA@c121f04 llava/eval/qa_baseline_gpt35.py.
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
from llava.eval.judge_flags import add_judge_flags
from llava.eval.text_baseline import MODEL, answer_questions


def build_parser() -> argparse.ArgumentParser:
    """The original's flags, and those of the endpoint."""
    prog, text = "python -m llava.eval.qa_baseline_gpt35", "ChatGPT answer generation."
    parser = argparse.ArgumentParser(prog=prog, description=text)
    parser.add_argument("-q", "--question")
    parser.add_argument("-o", "--output")
    text = "maximum number of tokens produced in the output"
    parser.add_argument("--max-tokens", type=int, default=1024, help=text)
    add_judge_flags(parser, MODEL)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the answers; returns the exit code."""
    args = build_parser().parse_args(argv)

    def work() -> int:
        if args.question is None or args.output is None:
            raise UsageError("Give --question FILE and --output FILE.")
        output = Path(os.path.expanduser(args.output))
        return answer_questions(args, Path(os.path.expanduser(args.question)), output)

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
