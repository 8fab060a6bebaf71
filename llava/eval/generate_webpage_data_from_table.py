"""Front door: ``python generate_webpage_data_from_table.py`` in ``llava/eval``: the data of Vicuna's comparison page.

It reads ``table/`` and writes ``webpage/data.json`` in the current folder, as the original does.

Source: haotian-liu/LLaVA@c121f04 llava/eval/generate_webpage_data_from_table.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
from collections.abc import Sequence

from llava.entry_point import run_command
from llava.eval.comparison_page import MODELS as models
from llava.eval.comparison_page import read_table, trim_hanging_lines, write_page

__all__ = ["main", "models", "read_jsonl", "trim_hanging_lines"]

read_jsonl = read_table


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page's data; returns the exit code."""
    prog = "python -m llava.eval.generate_webpage_data_from_table"
    argparse.ArgumentParser(prog=prog, description="Generate json file for webpage.").parse_args(argv)

    def work() -> int:
        write_page(Path("."))
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
