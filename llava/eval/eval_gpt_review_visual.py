"""Front door: ``python -m llava.eval.eval_gpt_review_visual``, LLaVA-Bench's (COCO) reviews.

It parses the command line; ``review_command`` does the work. Deliberate differences from the original: retries are
bounded, what was answered before a kill is not asked again, answers are matched by question_id, and a review without a
reply is not written.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_gpt_review_visual.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from collections.abc import Sequence

from llava.entry_point import run_command
from llava.eval.pair_reviews import PairProtocol, describe_boxes
from llava.eval.review_command import build_parser, run_reviews, say_kept, say_written
from llava.eval.scoring.judged import parse_score

__all__ = ["main", "parse_score"]

PROTOCOL = PairProtocol(judge="gpt-4-0314", describe=describe_boxes)


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the reviews; returns the exit code."""
    arguments = build_parser("python -m llava.eval.eval_gpt_review_visual", PROTOCOL).parse_args(argv)
    return run_command(lambda: run_reviews(arguments, PROTOCOL, say_kept, say_written))


if __name__ == "__main__":
    sys.exit(main())
