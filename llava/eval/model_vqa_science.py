"""Front door: ``python -m llava.eval.model_vqa_science``: answers the questions of ScienceQA.

Source: haotian-liu/LLaVA@c121f04 llava/eval/model_vqa_science.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from llava.eval import original_runner as runner
from llava.eval.question_files import read_science


def eval_model(args: Any) -> int:
    """Answers the questions that ``args`` names; returns the exit code."""
    path = Path(os.path.expanduser(args.question_file))
    questions = read_science(path, Path(args.image_folder), asks_letter=args.single_pred_prompt)
    settings = runner.read_settings(args)
    return runner.answer_into_file(questions, args, settings, args.conv_mode, (args.num_chunks, args.chunk_idx))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``eval_model`` from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.model_vqa_science")
    runner.add_original_flags(parser, question_file="tables/question.json")
    parser.set_defaults(conv_mode="llava_v0")
    parser.add_argument("--answer-prompter", action="store_true")
    parser.add_argument("--single-pred-prompt", action="store_true")
    return runner.run_main(parser, argv, eval_model)


if __name__ == "__main__":
    sys.exit(main())
