"""Front door: ``python -m llava.eval.mm_vet_evaluator``, with the flags of MM-Vet's own evaluator.

It translates the command line and decides nothing. The key comes from the environment; ``--openai_api_key`` is ignored,
since other users of the machine can read it.

Source: yuweihao/MM-Vet@7d717c2 mm-vet_evaluator.py.
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
from llava.eval.judge_flags import add_judge_flags
from llava.eval.mm_vet_grades import GradingFiles, grade
from llava.eval.scoring.mm_vet import JUDGE, MAX_TOKENS
from llava.text import write_line


def build_parser() -> argparse.ArgumentParser:
    """MM-Vet's flags, and those of the judge."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.mm_vet_evaluator")
    parser.add_argument("--openai_api_key", help="ignored: set OPENAI_API_KEY")
    parser.add_argument("--mmvet_path", type=Path, required=True, metavar="DIR", help="with mm-vet.json")
    parser.add_argument("--model", default="llava_llama2_13b_chat", help="the answers are RESULT_PATH/MODEL.json")
    parser.add_argument("--gpt_model", default=None, help="the judge, as --judge-model")
    parser.add_argument("--use_sub_set", action="store_true", help="only the questions of bard_set.json")
    parser.add_argument("--decimal_places", type=int, default=1)
    parser.add_argument("--result_path", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--num_run", type=int, default=1, help="the paper has 5")
    add_judge_flags(parser, JUDGE)
    text = "longest reply (default: %(default)s, as published; a judge that reasons first needs more)"
    parser.add_argument("--judge-max-tokens", type=int, default=MAX_TOKENS, metavar="N", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Grades the answers; returns the exit code."""
    arguments = build_parser().parse_args(argv)

    def work() -> int:
        if arguments.num_run < 1:
            raise UsageError(f"--num_run is {arguments.num_run}; it has to be at least 1.")
        if arguments.openai_api_key is not None:
            write_line("llava: --openai_api_key is ignored: other users can read it. Set OPENAI_API_KEY.")
        arguments.judge_model = arguments.gpt_model or arguments.judge_model
        files = GradingFiles(arguments.mmvet_path, arguments.result_path, arguments.model, arguments.use_sub_set)
        return grade(arguments, files, arguments.num_run, arguments.decimal_places)

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
