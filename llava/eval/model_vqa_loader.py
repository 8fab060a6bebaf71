"""Front door: ``python -m llava.eval.model_vqa_loader``: answers questions about images in short.

Source: haotian-liu/LLaVA@c121f04 llava/eval/model_vqa_loader.py.
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
from llava.eval.question_files import read_lines


def eval_model(args: Any) -> int:
    """Answers the questions that ``args`` names; returns the exit code."""
    path = Path(os.path.expanduser(args.question_file))
    questions = read_lines(path, Path(args.image_folder))
    settings = runner.read_settings(args, args.max_new_tokens)
    template = runner.name_template(args.model_path, args.conv_mode)
    return runner.answer_into_file(questions, args, settings, template, (args.num_chunks, args.chunk_idx))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``eval_model`` from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.model_vqa_loader")
    runner.add_original_flags(parser)
    runner.add_beam_flags(parser)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    return runner.run_main(parser, argv, eval_model)


if __name__ == "__main__":
    sys.exit(main())
