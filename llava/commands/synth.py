"""``llava synth``: drawn images with known answers."""

from __future__ import annotations

import argparse
from typing import Any

from llava.commands.flags import add_command


def add_synth(commands: Any) -> None:
    """Adds the command to the parser's ``commands``."""
    parser = add_command(commands, "synth", _synth, "Draw images with known answers, in LLaVA's data format.")
    parser.add_argument("folder", metavar="FOLDER", help="for data.json and images/")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--kind", action="append", default=[], metavar="NAME", help="only images of this kind; may be repeated"
    )
    parser.add_argument("--turns", type=int, default=4, metavar="N", help="questions per image (default: %(default)s)")


def _synth(arguments: argparse.Namespace) -> int:
    from llava.synth.write import write

    count, seed, turns = arguments.count, arguments.seed, arguments.turns
    print(write(arguments.folder, count, seed=seed, kinds=arguments.kind, turns=turns))
    return 0
