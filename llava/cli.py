"""The ``llava`` command: its parser and its exit codes.

Each command in ``llava.commands`` imports the module that does its work when it runs, so that ``llava --help`` loads no
torch. A user's mistake is one sentence on stderr and the exit code of its error: 2 for a wrong invocation, 1 for a
failure. Ctrl-C exits with 130.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from llava import __version__
from llava.commands.ask import add_ask
from llava.commands.chat import add_chat
from llava.commands.convert import add_convert
from llava.commands.data import add_data
from llava.commands.eval import add_eval
from llava.commands.info import add_info
from llava.commands.serve import add_serve
from llava.commands.server_config import apply_config
from llava.commands.synth import add_synth
from llava.commands.train import add_train
from llava.entry_point import run_command
from llava.errors import LlavaError, UsageError
from llava.text import open_streams, write_line

COMMANDS = (add_ask, add_chat, add_info, add_convert, add_serve, add_train, add_data, add_synth, add_eval)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; argparse's own errors exit with 2."""
    has_output = open_streams()

    def work() -> int:
        try:
            return _run(sys.argv[1:] if argv is None else list(argv), has_output)
        except SystemExit:  # raised by argparse, also after --help
            sys.stdout.flush()
            raise

    return run_command(work)


def _run(argv: list[str], has_output: bool) -> int:
    arguments, rest = _parse(argv)
    arguments.has_output = has_output
    if not has_output and arguments.needs_output:
        raise LlavaError("Standard output is closed, and the output of this command goes there.")
    # Images may stand on both sides of a flag, which argparse alone does not support.
    flags = [word for word in rest if word.startswith("-") and word != "-"]
    if flags or (rest and "words" not in arguments):
        arguments.parser.error(f"unrecognized arguments: {' '.join(flags or rest)}")
    if rest:
        arguments.words += rest
    code: int = arguments.run(arguments)
    return code


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, with the settings of a config file for flags that are not given, and the words left over."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if (config := getattr(arguments, "config", None)) is not None:
        apply_config(config, arguments.parser)
        arguments, rest = parser.parse_known_args(argv)
    return arguments, rest


class _Parser(argparse.ArgumentParser):
    """Prints its errors in the form of this command's other errors."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        write_line(f"llava: error: {message}")
        self.exit(UsageError.exit_code)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; docs/cli.md is generated from it."""
    parser = _Parser(prog="llava", description="Ask a LLaVA model about images, serve it, train one, score it.")
    parser.add_argument("--version", action=_Version, help="print the versions of llava and what it runs on")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    return parser


class _Version(argparse.Action):
    """Prints this version and those of the libraries that models run on, which depend on Python's."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parts = [f"Python {platform.python_version()}"]
        for name in ("transformers", "torch"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                parts.append(f"{name} {importlib.metadata.version(name)}")
        print(f"llava {__version__} ({', '.join(parts)})")
        parser.exit()
