"""Front door: ``python -m llava.eval.summarize_gpt_review``, the scores in reviews files.

It translates the command line and decides nothing. A deliberate difference from the original: failed reviews are left
out and counted on stderr.

Source: haotian-liu/LLaVA@c121f04 llava/eval/summarize_gpt_review.py.
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
from llava.eval.review_summary import RULE, find_label, find_review_files, print_summary


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The original's flags."""
    prog, text = "python -m llava.eval.summarize_gpt_review", "ChatGPT-based QA evaluation."
    parser = argparse.ArgumentParser(prog=prog, description=text)
    parser.add_argument("-d", "--dir", default=None)
    parser.add_argument("-v", "--version", default=None)
    parser.add_argument("-s", "--select", nargs="*", default=None)
    parser.add_argument("-f", "--files", nargs="*", default=[])
    parser.add_argument("-i", "--ignore", nargs="*", default=[], type=int)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the summaries; returns the exit code."""
    args = parse_args(argv)

    def work() -> int:
        if not args.files and args.dir is None:
            raise UsageError("Name reviews files with --files, or their folder with --dir.")
        for name in sorted(args.files or find_review_files(args.dir)):
            label, version = find_label(name)
            if any(part not in label for part in args.select or ()) or args.version not in (None, version):
                continue
            print(label)
            print_summary(Path(os.path.join(args.dir, name) if args.dir is not None else name), args.ignore)
            print(RULE)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
