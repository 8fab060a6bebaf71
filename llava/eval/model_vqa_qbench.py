"""Front door: ``python -m llava.eval.model_vqa_qbench``: answers Q-Bench's questions.

The answers are one JSON object a line; the original wrote them without a line break between them.

Source: haotian-liu/LLaVA@c9f19e9 llava/eval/model_vqa_qbench.py.
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
from llava.eval.question_files import read_qbench


def eval_model(args: Any) -> int:
    """Answers the questions that ``args`` names; returns the exit code."""
    path = Path(os.path.expanduser(args.questions_file))
    questions = read_qbench(path, args.image_folder, lang=args.lang)
    return runner.answer_into_file(questions, args, runner.Settings(temperature=0.0), args.conv_mode)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``eval_model`` from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.model_vqa_qbench")
    parser.add_argument("--model-path", default="llava-v1.5")
    parser.add_argument("--model-base", default=None)
    parser.add_argument("--image-folder", default="./playground/data/qbench/images_llvisionqa")
    parser.add_argument("--questions-file", default="./playground/data/qbench/llvisionqa_dev.json")
    parser.add_argument("--answers-file", default="answer.jsonl")
    parser.add_argument("--conv-mode", default="llava_v1")
    parser.add_argument("--lang", default="en")
    return runner.run_main(parser, argv, eval_model)


if __name__ == "__main__":
    sys.exit(main())
