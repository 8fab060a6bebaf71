"""``llava data review``: the rows of ``llava data collect`` that a person accepted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llava.commands.flags import add_command


def add_review(actions: Any) -> None:
    """Adds the command to the parser's ``actions``."""
    text = "Apply the decisions of review sheets: write the accepted rows of llava data collect."
    parser = add_command(actions, "review", _review, text)
    parser.add_argument("sheets", nargs="+", type=Path, metavar="SHEET.json", help="decisions saved from a sheet")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder of llava data collect")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: DIR/accepted.json)")
    parser.add_argument("--keep-undecided", action="store_true", help="keep rows without a decision, too")


def _review(arguments: argparse.Namespace) -> int:
    from llava.data.collection.collect import review

    for line in review(arguments.sheets, arguments.data, arguments.out, arguments.keep_undecided):
        print(line)
    return 0
