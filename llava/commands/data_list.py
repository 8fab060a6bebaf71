"""``llava data list``: the datasets that can be converted."""

from __future__ import annotations

import argparse
from typing import Any

from llava.commands.flags import add_command


def add_list(actions: Any) -> None:
    """Adds the command to the parser's ``actions``."""
    parser = add_command(
        actions,
        "list",
        _list,
        "Print the datasets that can be converted: rows, licence, files and where they come from.",
        needs_output=True,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="everything about this one (default: a table of all)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _list(arguments: argparse.Namespace) -> int:
    from llava.data.convert.table import CONVERTERS, find_converter
    from llava.data.convert.table_listing import describe, print_json, print_table

    rows = [find_converter(arguments.name)] if arguments.name else list(CONVERTERS.values())
    if arguments.json:
        print_json(rows)
    elif arguments.name:
        print(describe(rows[0]))
    else:
        print_table(rows)
    return 0
