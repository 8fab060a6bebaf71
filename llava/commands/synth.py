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
        "--kind",
        action="append",
        default=[],
        metavar="NAME",
        help="only images of this kind, such as chart or page-text; may be repeated",
    )
    parser.add_argument("--turns", type=int, default=4, metavar="N", help="questions per image (default: %(default)s)")
    parser.add_argument(
        "--held-out", action="store_true", help="only words and color-shape pairs that are never drawn without it"
    )


def _synth(arguments: argparse.Namespace) -> int:
    from llava.data.prompts import ANSWER_FORMATS
    from llava.synth.write import write

    path = write(
        arguments.folder,
        arguments.count,
        seed=arguments.seed,
        kinds=arguments.kind,
        turns=arguments.turns,
        held_out=arguments.held_out,
        formats=ANSWER_FORMATS,
    )
    print(path)
    return 0
