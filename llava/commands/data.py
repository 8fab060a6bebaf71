"""``llava data``: reads, converts, mixes and checks training data; each of its commands is a file beside this one."""

from __future__ import annotations

from typing import Any

from llava.commands.data_check import add_check
from llava.commands.data_collect import add_collect
from llava.commands.data_convert import add_convert
from llava.commands.data_list import add_list
from llava.commands.data_mix import add_mix
from llava.commands.data_overlap import add_overlap
from llava.commands.data_review import add_review

ACTIONS: tuple[Any, ...] = (add_list, add_convert, add_check, add_mix, add_overlap, add_collect, add_review)


def add_data(commands: Any) -> None:
    """Adds the command and its own commands to the parser's ``commands``."""
    text = "Convert, check, mix and collect training data."
    parser = commands.add_parser("data", help=text, description=text)
    parser.set_defaults(parser=parser)
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add_action in ACTIONS:
        add_action(actions)
