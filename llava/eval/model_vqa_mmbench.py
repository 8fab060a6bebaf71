"""Front door: ``python -m llava.eval.model_vqa_mmbench``: answers the questions of an MMBench table.

Source: haotian-liu/LLaVA@c121f04 llava/eval/model_vqa_mmbench.py.
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
from llava.eval.question_files import read_mmbench


def eval_model(args: Any) -> int:
    """Answers the questions that ``args`` names; returns the exit code."""
    path = Path(os.path.expanduser(args.question_file))
    questions = read_mmbench(
        path,
        lang=args.lang,
        asks_letter=args.single_pred_prompt,
        all_rounds=args.all_rounds,
        chunk=(args.num_chunks, args.chunk_idx),
    )
    settings = runner.read_settings(args)
    template = runner.name_template(args.model_path, args.conv_mode)
    return runner.answer_into_file(questions, args, settings, template)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``eval_model`` from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.model_vqa_mmbench")
    runner.add_original_flags(parser)
    runner.add_beam_flags(parser)
    parser.add_argument("--all-rounds", action="store_true")
    parser.add_argument("--single-pred-prompt", action="store_true")
    parser.add_argument("--lang", default="en")
    return runner.run_main(parser, argv, eval_model)


if __name__ == "__main__":
    sys.exit(main())
